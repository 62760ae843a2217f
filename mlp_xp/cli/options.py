"""The options that several subcommands share: which data, and which settings."""

from __future__ import annotations

import argparse
import dataclasses
import re
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np

from mlp_xp.cli.progress import note
from mlp_xp.datasets import Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.errors import DataError
from mlp_xp.replicas import FEWEST
from mlp_xp.settings import CHOICES, PRESETS, Settings


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `make_source` reads."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        default="digits",
        metavar="NAME|FILE",
        help="digits (the default, embedded), mnist, a .csv, .csv.gz, .npy or .npz file, or an IDX pair IMAGES,LABELS",
    )
    group.add_argument("--label-column", type=int, default=0, metavar="N", help="of a table; default 0, the first")
    group.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether a CSV's first line is names; default: looks",
    )
    group.add_argument("--classes", type=int, metavar="N", help="number of classes; default: the largest label + 1")
    group.add_argument("--task", choices=("classification", "regression"), default="classification")
    group.add_argument(
        "--scale",
        type=_fraction,
        metavar="F",
        help="factor of the features, such as 1/256; default: 1/256 for 8-bit images, 1/16 for digits, else 1",
    )
    group.add_argument("--test-size", type=_share, default=0.2, metavar="F", help="share kept for testing; default 0.2")
    group.add_argument("--split-seed", type=seed, default=2020, metavar="N", help="default 2020, the lab's")


def make_source(options: argparse.Namespace) -> DataSource:
    """Return where the data come from and how they are split, as the options say."""
    return DataSource(
        options.data,
        label_column=options.label_column,
        header=options.header,
        n_classes=options.classes,
        regression=options.task == "regression",
        scale=options.scale,
        test_size=options.test_size,
        split_seed=options.split_seed,
    )


def load_split(source: DataSource) -> Split:
    """Load and split data, with warnings turned into remarks."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        data = source.load(progress=True)
    for warning in caught:
        note(str(warning.message))
    return data


def load_recorded(source: DataSource, now: str | None) -> Split:
    """Load and split a recorded run's data, from where they are ``now`` if that is another place than it was.

    If they are not where they were, the error names the option that says where they are.
    """
    if now is not None:
        return load_split(dataclasses.replace(source, name=now))
    try:
        return load_split(source)
    except DataError as error:
        raise DataError(f"{error}; if the data are elsewhere now, say where with --data") from error


def describe(data: Split) -> str:
    """Return a line that lets a wrong column or a missing class be seen."""
    train, test = data
    shape = f"{train.name}: {train.n_samples:,} + {test.n_samples:,} rows of {train.n_features} features"
    if train.n_classes is None:
        return f"{shape}, {train.targets.shape[1]} number(s) to predict"
    missing = train.n_classes - np.unique(np.concatenate([train.targets, test.targets])).size
    absent = f", of which {missing} never occur (labels count from 0)" if missing else ""
    return f"{shape}, {train.n_classes} classes{absent}"


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `make_settings` reads; each is left unset unless given."""
    group = parser.add_argument_group("training")
    group.add_argument("--preset", choices=PRESETS, help="settings to start from; the options below change them")
    add_network_arguments(group)
    add_training_arguments(group, Settings())


def add_network_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the options that decide what the network is."""
    group.add_argument(
        "--hidden",
        dest="hidden_layer_sizes",
        type=_sizes,
        metavar="N,N,…",
        help='units of every hidden layer; "" for none',
    )
    _add_settings(group, Settings(), ("activation", str, "of the hidden layers"))
    for name, text in (
        ("residual", "hidden layers that have as many units as inputs add these to what they hand on"),
        ("batch_norm", "what hidden units are given is normalised over the batch"),
    ):
        group.add_argument(f"--{name.replace('_', '-')}", action="store_true", default=None, help=text)
    _add_settings(group, Settings(), ("pretrain", str, "layerwise: train the hidden layers one after another first"))


def add_training_arguments(group: argparse._ArgumentGroup, defaults: Settings) -> None:
    """Add the options that decide how a network is trained."""
    _add_settings(
        group,
        defaults,
        ("loss", str, ""),
        ("optimizer", str, ""),
        ("learning_rate", float, ""),
        ("momentum", float, "of sgd"),
        ("beta_1", float, "of adam"),
        ("beta_2", float, "of adam"),
        ("epsilon", float, "of adam"),
        ("l2", float, "penalty: l2 / 2 × the sum of all squared weights"),
        ("dropout", float, "share of the hidden units that a step leaves out"),
        ("max_gradient_norm", float, "a longer gradient is shortened to that norm; default never"),
        ("pretrain_epochs", int, "of each hidden layer, in layer-wise pre-training"),
        ("batch_size", int, ""),
        ("epochs", int, ""),
        ("init", str, "initial parameters"),
        ("seed", int, "of the initial parameters, of the batches' order, and of dropout"),
        ("dtype", str, "default float32, or float64 in exact arithmetic"),
        ("arithmetic", str, "exact: the same bits on every backend"),
    )
    group.add_argument("--nesterov", action="store_true", default=None, help="Nesterov's form of the momentum")


def _add_settings(group: argparse._ArgumentGroup, defaults: Settings, *options: tuple[str, type, str]) -> None:
    for name, kind, text in options:
        choices = ", ".join(CHOICES[name]) if name in CHOICES else ""
        standard = getattr(defaults, name) if name != "dtype" else ""
        default = f"default {standard}" if standard not in ("", None) else ""
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            metavar="NAME" if kind is str else "N" if kind is int else "X",
            help="; ".join(part for part in (text, choices, default) if part),
        )


def make_settings(options: argparse.Namespace) -> Settings:
    """Return the preset, or the defaults, with every option that was given.

    Raises
    ------
    SettingsError
        If a value is not allowed.
    """
    settings = PRESETS[options.preset] if options.preset else Settings()
    if options.task == "regression" and options.loss is None:
        options.loss = "squared_error"
    return change_settings(settings, options)


def change_settings(settings: Settings, options: argparse.Namespace) -> Settings:
    """Return settings with every option that was given.

    Raises
    ------
    SettingsError
        If a value is not allowed.
    """
    names = (field.name for field in dataclasses.fields(Settings))
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    if "arithmetic" in given:
        given.setdefault("dtype", "")  # the arithmetic's own, instead of that of the settings to start from
    return dataclasses.replace(settings, **given)


def path(text: str) -> Path:
    """Return what an option says is to be written; an unset variable in a script must not pass for "nothing"."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name; give one, or leave the option out")
    return Path(text)


def replicas(text: str) -> int:
    """Return a number of seeds that have a spread."""
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < FEWEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seeds such as 8, and at least {FEWEST}")
    return int(text)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 256,256") from None


def _fraction(text: str) -> float:
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a fraction such as 1/256") from None
    if value == 0.0:
        raise argparse.ArgumentTypeError("0 would leave nothing of the features")
    return value


def seed(text: str) -> int:
    """Return a whole number that every library's generator takes as its seed."""
    if not text.isdecimal() or int(text) >= 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {(1 << 32) - 1}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value
