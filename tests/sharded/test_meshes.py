"""The number of devices and how they are used must not change a number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import mesh as meshes
from ftjax.errors import UserError
from ftjax.models import params
from tests import preference_cases

MESHES = {
    "data": {"data": 8, "fsdp": 1, "tensor": 1},
    "fsdp": {"data": 1, "fsdp": 8, "tensor": 1},
    "tensor": {"data": 1, "fsdp": 1, "tensor": 8},
    "all three": {"data": 2, "fsdp": 2, "tensor": 2},
}


@pytest.fixture(scope="module")
def reference(sft_case, curve, tiny_batch):
    return curve(sft_case(), tiny_batch)


def on_mesh(case, batch, sizes, config, steps=5):
    mesh = meshes.make(**sizes)
    letters = params.axes(config)
    state = jax.device_put(case.state, meshes.trainable_shardings(mesh, case.state, letters))
    base = case.base
    if jax.tree.leaves(base):
        base = jax.device_put(base, meshes.base_shardings(mesh, base, letters))
    losses = []
    with jax.set_mesh(mesh):
        for _ in range(steps):
            state, metrics = case.step(state, base, meshes.place_batch(mesh, batch), jnp.float32(jnp.inf))
            losses.append(float(metrics["loss"]))
    return losses, state, base


@pytest.mark.parametrize("name", MESHES)
def test_eight_devices_give_the_curve_of_one(name, sft_case, tiny_config, tiny_batch, reference):
    losses, state, base = on_mesh(sft_case(), tiny_batch, MESHES[name], tiny_config())
    np.testing.assert_allclose(losses, reference, atol=1e-5)
    if name != "data":
        assert not base.blocks.gate_proj.sharding.is_fully_replicated
        moments = state.opt_state[1].mu.blocks.gate_proj
        assert not (moments.a.sharding.is_fully_replicated and moments.b.sharding.is_fully_replicated)


def test_full_fine_tuning_is_the_same_on_a_mesh(sft_case, curve, tiny_config, tiny_batch):
    alone = curve(sft_case(full=True), tiny_batch)
    losses, _, _ = on_mesh(sft_case(full=True), tiny_batch, MESHES["all three"], tiny_config())
    np.testing.assert_allclose(losses, alone, atol=1e-5)


def test_microbatches_and_a_mesh_together_change_nothing(sft_case, tiny_config, tiny_batch, reference):
    losses, _, _ = on_mesh(sft_case(microbatches=2), tiny_batch, {"data": 2, "fsdp": 2, "tensor": 2}, tiny_config())
    np.testing.assert_allclose(losses, reference, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"data": 3, "fsdp": 1, "tensor": 1}, "mesh data 3 x fsdp 1 x tensor 1 does not fill 8 devices"),
        ({"data": -1, "fsdp": -1, "tensor": 1}, "at most one is -1"),
        ({"data": 0, "fsdp": 1, "tensor": 1}, "each is at least 1"),
        ({"data": -1, "fsdp": 3, "tensor": 1}, "does not fill 8 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes, text):
    with pytest.raises(UserError, match=text):
        meshes.make(**sizes)


def test_an_axis_that_does_not_divide_stays_whole():
    mesh = meshes.make(data=1, fsdp=8, tensor=1)
    assert meshes.weight_sharding(mesh, ("L", "D", "F"), (3, 12, 64)).is_fully_replicated
    assert not meshes.weight_sharding(mesh, ("L", "D", "F"), (3, 16, 64)).is_fully_replicated


@pytest.fixture(scope="module")
def of_preferences(preference_case, preference_batch_of_8):
    """Returns the curve on one device of DPO, and of a reward model."""
    return {
        make: preference_cases.trained(preference_case(make), preference_batch_of_8)[0]
        for make in (preference_cases.make_dpo, preference_cases.make_reward)
    }


OTHERS = [pytest.param(name, marks=pytest.mark.e2e) for name in MESHES if name != "all three"]


@pytest.mark.parametrize("name", ["all three", *OTHERS])
@pytest.mark.parametrize("make", [preference_cases.make_dpo, preference_cases.make_reward])
def test_preferences_give_the_same_curve_on_eight_devices(
    make, name, of_preferences, preference_case, preference_batch_of_8, tiny_config
):
    losses, state, base = on_mesh(preference_case(make), preference_batch_of_8, MESHES[name], tiny_config())
    np.testing.assert_allclose(losses, of_preferences[make], atol=1e-5)
    if name != "data":
        assert not base.blocks.gate_proj.sharding.is_fully_replicated
        moments = state.opt_state[1].mu.blocks.down_proj
        assert not (moments.a.sharding.is_fully_replicated and moments.b.sharding.is_fully_replicated)


@pytest.mark.e2e
def test_a_copy_that_is_the_reference_lies_on_a_mesh_like_what_trains(
    of_preferences, preference_case, preference_batch_of_8, tiny_config
):
    case = preference_case(preference_cases.make_dpo, reference="start")
    losses, state, _ = on_mesh(case, preference_batch_of_8, MESHES["fsdp"], tiny_config())
    np.testing.assert_allclose(losses, of_preferences[preference_cases.make_dpo], atol=1e-5)
    of_copy, of_policy = (
        jax.tree.leaves(jax.tree.map(lambda x: x.sharding, x)) for x in (state.extra, state.trainable)
    )
    assert [x.spec for x in of_copy] == [x.spec for x in of_policy]
    assert not all(x.is_fully_replicated for x in of_copy)
