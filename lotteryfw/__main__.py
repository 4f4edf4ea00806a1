"""`python -m lotteryfw`: the command line, where its script is not on the path."""

from lotteryfw.cli import main

if __name__ == "__main__":
    main()
