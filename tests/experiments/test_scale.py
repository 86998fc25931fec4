"""What the sharded train step sends and holds: weights and Gram matrices, no activations."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.small_run import virtual_devices

SCALE = pathlib.Path(__file__).parents[2] / "experiments" / "scale"
sys.path.insert(0, str(SCALE))

import hlo  # noqa: E402

PROGRAM = """
import json, sys
import jax, numpy as np
from jax.sharding import AxisType, Mesh
import compile_tpu
from orthoreg_jax.clip.config import PRESETS, ClipConfig, VisionConfig

devices = jax.devices()
if sys.argv[1] == "tpu":
    from jax.experimental import topologies
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices
VISUAL = VisionConfig(width=128, layers=3, heads=2, mlp_width=512, activation="gelu", eps=1e-5,
                      image_size=32, patch_size=8)
PRESETS["small"] = ClipConfig(visual=VISUAL, text=None, projection=128)
mesh = Mesh(np.array(devices).reshape(-1, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
steps = [compile_tpu.lower_step("small", method, mesh, 16, "float32", False)
         for method in ("full", "full+orthoreg")]
rows = [compile_tpu.compile_step(step) for step in steps]
print(json.dumps(rows))
"""
LAYERS, WIDTH = 3, 128
KERNELS = LAYERS * 12 * WIDTH**2  # numbers in the blocks' kernels


def compiled(platform):
    # libtpu ends the process at flags of the CPU's compiler.
    flags = virtual_devices(8) if platform == "cpu" else {"XLA_FLAGS": ""}
    command = [sys.executable, "-c", PROGRAM, platform]
    environment = os.environ | flags | {"PYTHONPATH": os.pathsep.join([str(SCALE), *sys.path])}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("platform, size", [("cpu", 4), ("tpu", 2)])
def test_weights_and_gram_matrices_are_all_that_is_sent(platform, size):
    if platform == "tpu":
        pytest.importorskip("libtpu", reason="compiling for TPUs takes `make tpu`")
    rows = compiled(platform)
    plain, penalised = (row["collectives"] for row in rows)
    for found in (plain, penalised):
        assert not {"all-to-all", "collective-permute"} & set(found)
        # Every kernel twice, for the forward and for the backward pass; the rest is small.
        assert 1 < found["all-gather"][1] / (2 * KERNELS * size) < 1.4
    if platform == "tpu":  # CPUs know no reduce-scatter
        # Gradients are summed in pieces: only a quarter of each goes on to the other four devices.
        assert plain["all-reduce"][1] < 0.4 * plain["reduce-scatter"][1]
    # One Gram matrix of the small side for each of four kernels in a layer, for the projection,
    # and of (17, 17) for the position embedding; dW itself is not sent.
    grams = 4 * ((4 * LAYERS + 1) * WIDTH**2 + 17**2)
    assert penalised["all-gather"][1] - plain["all-gather"][1] < 0.1 * grams
    assert penalised["all-reduce"][1] - plain["all-reduce"][1] == pytest.approx(grams, rel=0.1)
    # The penalty waits until the activations are gone: it takes no more than Gram matrices beside.
    assert rows[1]["temporaries"] - rows[0]["temporaries"] < grams


TEXT = """
%add (a: f32[], b: f32[]) -> f32[] {
}

%all-reduce-scatter.1 (input: f32[8,4]) -> f32[2,4] {
  %all-reduce.1 = f32[8,4]{1,0} all-reduce(%input), channel_id=3, to_apply=%add
  ROOT %slice = f32[2,4]{1,0} dynamic-slice(%all-reduce.1, %i, %zero), dynamic_slice_sizes={2,4}
}

%condition (p: (s32[], f32[2,4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body (p: (s32[], f32[2,4])) -> (s32[], f32[2,4]) {
  %step = bf16[8,4]{1,0} all-gather(%x), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  %last = bf16[8,4]{1,0} all-gather(%x), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  %fusion = f32[2,4]{1,0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
}

ENTRY %main (p: f32[2,4]) -> f32[2,4] {
  %while = (s32[], f32[2,4]) while(%t), condition=%condition, body=%body
  %start = (f32[2,4], f32[8,4]) all-gather-start(%p), channel_id=7, replica_groups={{0,1,2,3}}
  %done = f32[8,4] all-gather-done(%start)
  %sum = (f32[3]{0}, f32[]) all-reduce(%a, %b), channel_id=8, to_apply=%add
  %part = f32[2]{0} reduce-scatter(%c), channel_id=9, replica_groups=[2,4]<=[8], to_apply=%add
}
"""


def test_collectives_of_a_program():
    """Loops multiply, steps of one channel count once, a sliced all-reduce is a reduce-scatter."""
    assert hlo.collectives(TEXT) == {
        "all-gather": (5 + 1, 5 * 64 + 128),
        "reduce-scatter": (5 + 1, 5 * 128 + 32),
        "all-reduce": (1, 16),
    }
