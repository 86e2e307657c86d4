"""Builds parts of a setup on another machine, from the values of the config."""

import os
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from data_collection.setup import SearchSetup
from lit_qagent.command_line import Parser, own_error
from lit_qagent.core.errors import ConfigError
from lit_qagent.policies.base import Policy

POLICY = "policy"


def take_recipe(setup: SearchSetup) -> dict[str, Any]:
    """Return the values that the fields of a setup are built from.

    Raises:
        ConfigError: The setup does not say them.
    """
    if setup.recipe is None:
        raise ConfigError(
            "this executor builds the world and the policy again on other machines and needs what "
            "they are built from; give SearchSetup.recipe, the values as in a config"
        )
    names = {each.name for each in fields(SearchSetup)} - {"recipe"}
    return {name: value for name, value in setup.recipe.items() if name in names}


def build(recipe: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Build some fields of a setup.

    Args:
        recipe: Field to value, as in a config.
        names: Fields to build; those that the recipe leaves out get their defaults.

    Raises:
        QAgentError: A part could not be built, as its file is missing, say.
    """
    others: set[str | int] = {each.name for each in fields(SearchSetup) if each.name not in names}
    parser = Parser(exit_on_error=False)
    parser.add_class_arguments(SearchSetup, skip=others)
    try:
        config = parser.parse_object({name: recipe[name] for name in names if name in recipe})
        return dict(vars(parser.instantiate(config)))
    except Exception as error:
        cause = own_error(error)
        if cause is None:
            raise
        raise cause from error


def build_policy(recipe: Mapping[str, Any]) -> Policy:
    """Build the policy alone."""
    policy: Policy = build(recipe, [POLICY])[POLICY]
    return policy


def build_setup(recipe: Mapping[str, Any], policy: Policy) -> SearchSetup:
    """Build everything but the policy, and put one in its place."""
    names = {each.name for each in fields(SearchSetup)} - {POLICY, "recipe"}
    return SearchSetup(policy=policy, **build(recipe, names))


def enter_folder(folder: str) -> None:
    """Go to the folder that relative paths of the config are meant from, if it is there."""
    if Path(folder).is_dir():
        os.chdir(folder)
