"""Recipes: TOML in, checked cells out, or everything that is wrong at once."""

from __future__ import annotations

from lotteryfw.recipe.claims import Claim as Claim
from lotteryfw.recipe.claims import Side as Side
from lotteryfw.recipe.json_schema import json_schema as json_schema
from lotteryfw.recipe.load import Recipe as Recipe
from lotteryfw.recipe.load import load_recipe as load_recipe
from lotteryfw.recipe.toml_writer import to_toml as to_toml
from lotteryfw.recipe.written_parts import WrittenParts as WrittenParts
