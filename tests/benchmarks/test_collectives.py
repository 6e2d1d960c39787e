"""Text of compiled programs, shortened from what the TPU's compiler writes, and a CPU program."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.collectives import Collective, collectives, totals, trip_counts

ADD = """\
%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}
"""


def module(*instructions: str, others: str = "") -> str:
    body = "\n".join(f"  {each}" for each in instructions)
    return (
        f"HloModule jit_step\n\n{ADD}\n{others}\nENTRY %main (p: f32[8]) -> f32[8] {{\n{body}\n}}"
    )


SUM = (
    "%all-reduce.1 = (f32[32]{0:T(128)S(1)}, /*index=1*/bf16[2,32]{1,0:T(2,128)S(1)}) "
    "all-reduce(%a, %b), channel_id=3, replica_groups={GROUPS}, to_apply=%add, "
    'metadata={op_name="jit(train_step)/all-gather(x)"}'
)


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_1'}", 2),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}", 8),
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("{}", 8),
    ],
)
def test_reads_all_arrays_of_a_tuple_and_the_size_of_the_groups(groups, size):
    text = module(SUM.replace("{GROUPS}", groups))
    assert collectives(text, 8) == [Collective("all-reduce", 32 * 4 + 64 * 2, size, 1)]


def test_takes_the_whole_array_on_either_side_of_a_gather_and_a_scatter():
    text = module(
        "%g = f32[16,8]{1,0} all-gather(%a), replica_groups={{0,1}}, dimensions={0}",
        "%s = f32[4,8]{1,0} reduce-scatter(%g), replica_groups={{0,1}}, to_apply=%add",
        "%p = f32[4,8]{1,0} collective-permute(%s), source_target_pairs={{0,1}}",
    )
    assert totals(collectives(text, 2)) == {
        "all-gather": (1, 512),
        "reduce-scatter": (1, 256),
        "collective-permute": (1, 128),
    }


def test_counts_asynchronous_ones_once():
    text = module(
        "%g = ((f32[2,8]{1,0}, f32[8]{0}), (f32[4,8]{1,0}, f32[16]{0})) "
        "all-gather-start(%a, %b), replica_groups={{0,1}}, dimensions={0}",
        "%d = (f32[4,8]{1,0}, f32[16]{0}) all-gather-done(%g)",
        "%r = f32[8]{0} all-reduce-start(%b), replica_groups={{0,1}}, to_apply=%add",
        "%e = f32[8]{0} all-reduce-done(%r)",
    )
    assert totals(collectives(text, 2)) == {
        "all-gather": (1, (32 + 16) * 4),
        "all-reduce": (1, 32),
    }


LOOP = """\
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %r = f32[8]{0} all-reduce(%b), replica_groups={{0,1}}, to_apply=%add
}

%condition (p: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}
"""
WHILE = "%w = (s32[], f32[8]{0}) while(%t), condition=%condition, body=%body"


def test_multiplies_what_is_in_a_loop_by_its_trips():
    trips = ', backend_config={"known_trip_count":{"n":"8"}}'
    text = module(WHILE + trips, others=LOOP)
    assert collectives(text, 2) == [Collective("all-reduce", 32, 2, 8)]
    assert totals(collectives(text, 2)) == {"all-reduce": (8, 256)}


COUNTER = """\
%body (p: (f32[8], u32[])) -> (f32[8], u32[]) {
  %p = (f32[8]{0}, u32[]) parameter(0)
  %two = u32[] constant(2)
  %i = u32[] get-tuple-element(%p), index=1
  %next = u32[] add(%i, %two)
  %s = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%x)
  %d = f32[4]{0} collective-permute-done(%s)
  ROOT %results = (f32[8]{0}, u32[]) tuple(%x, %next)
}

%condition (p: (f32[8], u32[])) -> pred[] {
  %end = u32[] constant(7)
  %p = (f32[8]{0}, u32[]) parameter(0)
  %i = u32[] get-tuple-element(%p), index=1
  ROOT %less = pred[] compare(%i, %end), direction=LT
}
"""


def test_counts_the_trips_of_a_loop_by_its_counter():
    text = module(WHILE, others=COUNTER)
    assert trip_counts(text) == [4]
    assert totals(collectives(text, 2)) == {"collective-permute": (4, 4 * 16)}


def test_refuses_a_loop_whose_trips_it_does_not_know():
    with pytest.raises(ValueError, match="trip count"):
        collectives(module(WHILE, others=LOOP), 2)


def test_what_a_chip_sends():
    assert Collective("all-reduce", 1000, 4, 1).link_bytes == 1500
    assert Collective("reduce-scatter", 1000, 4, 1).link_bytes == 750
    assert Collective("all-gather", 1000, 4, 1).link_bytes == 750
    assert Collective("collective-permute", 1000, 4, 1).link_bytes == 1000
    assert Collective("all-reduce", 1000, 1, 1).link_bytes == 0


def test_reads_what_xla_writes():
    mesh = Mesh(jax.devices()[:8], "x")
    split = NamedSharding(mesh, PartitionSpec("x"))
    x = jax.ShapeDtypeStruct((8, 96), jnp.float32, sharding=split)

    def sums(x):
        total, _ = jax.lax.scan(lambda c, _: (c + (x * c).sum(0), None), jnp.ones(96), length=5)
        return total

    compiled = jax.jit(sums).lower(x).compile()
    assert totals(collectives(compiled.as_text(), 8)) == {"all-reduce": (5, 5 * 96 * 4)}
