"""A recorder of updates that needs no GPU."""

from __future__ import annotations

from lotteryfw.engine.kernels.captured import Body, Pool


class Again:
    """Records work by keeping it. A replay never sees the step that it is for, as on a GPU."""

    def __init__(self) -> None:
        self.warm_ups = self.recordings = self.replays = 0

    def pool(self) -> Pool:
        return None

    def warm_up(self, body: Body) -> None:
        self.warm_ups += 1
        body()

    def record(self, body: Body, pool: Pool) -> Body:
        self.recordings += 1

        def replay() -> None:
            self.replays += 1
            body()

        return replay
