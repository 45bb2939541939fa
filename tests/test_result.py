"""result.json: what is written is read back, and whatever else lies there is refused in one sentence."""

import json
import typing

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from biwaa.errors import BiwaaError
from biwaa.result import (
    FORMAT,
    Accuracy,
    AnyWarning,
    Calibration,
    Cost,
    DomainFacts,
    Estimate,
    LabelFree,
    LabelShares,
    Model,
    Result,
    Selected,
    Stage,
    TargetAccuracy,
    dump_result,
    read_result,
    write_result,
)
from biwaa.result.warnings import RunWarning

quick = settings(max_examples=40, deadline=None)
numbers = st.floats(0, 1)
WARNINGS = typing.get_args(AnyWarning)


def drawn(kind, **known):
    """Instances of a struct, each field by its type."""
    fields = {field.name: of(field.type) for field in msgspec.structs.fields(kind) if field.name not in known}
    return st.builds(kind, **fields, **{name: st.just(value) for name, value in known.items()})


def of(kind):
    """Values of a field's type."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind in WARNINGS or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return drawn(kind)
    if origin is typing.Literal:
        return st.sampled_from(parts)
    if origin is tuple:
        return st.lists(of(parts[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), of(parts[1]), max_size=3)
    if parts:
        return st.one_of(*map(of, parts))
    return {
        str: st.text(max_size=8), int: st.integers(-(2**53), 2**53), float: numbers, bool: st.booleans(),
        type(None): st.none(),
    }[kind]  # fmt: skip


results = drawn(Result, format=FORMAT)


@given(results)
@quick
def test_a_result_is_read_back(tmp_path_factory, result):
    run = tmp_path_factory.mktemp("run")
    write_result(run, result)
    assert read_result(run) == result
    text = (run / "result.json").read_text(encoding="utf-8")
    assert text == dump_result(result)
    assert json.loads(text)["format"] == FORMAT


def test_every_warning_has_a_code_of_its_own():
    kinds = RunWarning.__subclasses__()
    assert set(kinds) == set(WARNINGS)
    assert len({kind.__struct_config__.tag for kind in kinds}) == len(kinds)
    assert all(kind.__struct_config__.tag_field == "code" for kind in kinds)


def small():
    """Source-only and two rounds, the first of which was selected."""
    right = Accuracy(over_images=0.5, over_classes=0.4)
    chosen = Selected(over_images=0.5, over_classes=0.4, stage="round 0", chosen_by="snd")
    stages = tuple(
        Stage(name=name, seconds=1.0, predicted_shares={"a": 1.0}, distance_to_source=0.0, accuracy=right)
        for name in ("source-only", "round 0", "round 1")
    )
    return Result(
        format=FORMAT, finished=True, method="mcc_teacher", seed=1, classes=("a",), stages=stages, warnings=(),
        source=DomainFacts(spec="s", images=3), target=DomainFacts(spec="t", images=3),
        model=Model(stage="round 0", chosen_by="snd", backbone="cnn", weights="", frozen=False, batch_norm="shared"),
        label_free=LabelFree(mean_confidence=0.5, mean_entropy=0.1), estimated_accuracy=Estimate(value=0.5),
        calibration=Calibration(temperature=1.0), label_shares=LabelShares(source={"a": 1.0}),
        cost=Cost(steps=1, images=1, seconds=1.0, this_sitting=1.0, steps_a_stage=1, images_a_step=1),
        fingerprints={}, versions={}, hardware={},
        accuracy=TargetAccuracy(adapted=chosen, average_of_rounds=right, oracle_best_round=chosen),
    )  # fmt: skip


def test_stages_by_name():
    result = small()
    assert result.stage("round 1") is result.stages[2]
    assert result.stage("round 9") is None
    assert result.selected is result.stages[1]
    assert result.baseline is result.stages[0]
    assert result.rounds == result.stages[1:]
    without = msgspec.structs.replace(result, stages=result.stages[1:])
    assert without.baseline is None
    assert without.rounds == without.stages


def test_what_is_unknown_is_left_out_of_the_file():
    facts = json.loads(dump_result(msgspec.structs.replace(small(), accuracy=None)))
    assert not {"accuracy", "held_out"} & set(facts)
    assert "validators" not in facts["stages"][0]


def damaged(**changed):
    """result.json of `small` with some facts changed; None takes a fact away."""
    facts = json.loads(dump_result(small())) | changed
    return json.dumps({name: value for name, value in facts.items() if value is not None})


@pytest.mark.parametrize(
    "text, message",
    [
        (None, r" holds no run that has finished a round: name the folder of one that has\.$"),
        ("{}", r" was written by another version of biwaa \(format 1 of result\.json, this one reads 2\): train "),
        (json.dumps({"accuracy": {"legs": {}}, "warnings": ["A sentence."]}), r"format 1 of result\.json"),
        (damaged(format=3), r"format 3 of result\.json, this one reads 2"),
        ("", r"result\.json is damaged \(.*\): `biwaa train --resume .*anew\.$"), ("[]", r"result\.json is damaged"),
        (dump_result(small())[:-30], r"result\.json is damaged"),
        ("\udcff", r"result\.json is damaged"), ("[" * 100_000, r"result\.json is damaged"),
        (damaged(model=None), r"damaged \(Object missing required field `model`\): "),
        (damaged(seed="one"), r"damaged \(Expected `int`, got `str` - at `\$\.seed`\): "),
        (damaged(warnings=[{"code": "nothing"}]), r"damaged \(Invalid value 'nothing' - at `\$\.warnings"),
        (damaged(format="two"), r"result\.json is damaged"),
    ],
    ids=["none", "empty", "sentences", "newer", "no text", "list", "cut", "no UTF-8", "deep", "lacking", "type", "code",
         "format"],
)  # fmt: skip
def test_what_is_no_result_is_refused_in_one_sentence(tmp_path, text, message):
    if text is not None:
        (tmp_path / "result.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BiwaaError, match=message) as error:
        read_result(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_run_of_another_format_is_refused_where_it_is_opened(tmp_path):
    import biwaa

    (tmp_path / "result.json").write_text('{"finished": true}')
    with pytest.raises(biwaa.BiwaaError, match="another version of biwaa"):
        biwaa.Run(tmp_path)
    with pytest.raises(biwaa.BiwaaError, match="holds no run"):
        biwaa.Run(tmp_path / "gone")
