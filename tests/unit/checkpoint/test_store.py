import contextlib
import json
import os
import resource
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import optax
import pytest

from ftjax import mesh as meshes
from ftjax.checkpoint import store
from ftjax.errors import UserError


def state(value, key=0):
    trainable = {
        "q_proj": jnp.full((3, 8, 4), value, jnp.float32),
        "norm": jnp.full((8,), value, jnp.bfloat16),
        "none": None,
    }
    return {
        "trainable": trainable,
        "optimizer": optax.adamw(1e-3).init({"q_proj": trainable["q_proj"]}),
        "key": jax.random.key(key),
        "keys": jax.random.split(jax.random.key(key), 3),
        "step": jnp.int32(value),
    }


def same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    numbers = lambda leaf: jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(numbers(a), numbers(b)), first, second)
    assert [a.dtype for a in jax.tree.leaves(first)] == [b.dtype for b in jax.tree.leaves(second)]


@contextlib.contextmanager
def full_disk(after):
    """Lets no file grow beyond `after` bytes, which fails a write as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_tree_comes_back_bit_for_bit_with_its_keys_and_facts(tmp_path):
    checkpoints = store.Store(tmp_path / "checkpoints", keep_last=2)
    facts = {"loss": 0.5, "data": {"batch": 7}, "names": ["a"]}
    checkpoints.save(3, state(3, key=5), facts)
    tree, found = checkpoints.restore(None, state(0))
    same(tree, state(3, key=5))
    assert found == facts
    assert jax.random.uniform(tree["key"]) == jax.random.uniform(jax.random.key(5))


def test_shapes_alone_are_enough_to_restore(tmp_path):
    checkpoints = store.Store(tmp_path, keep_last=1)
    checkpoints.save(1, state(1), {})
    same(checkpoints.restore(1, jax.eval_shape(lambda: state(0)))[0], state(1))


def test_the_last_ones_and_the_best_one_are_kept(tmp_path):
    checkpoints = store.Store(tmp_path, keep_last=2, keep_best=("eval_loss", "min"))
    assert (checkpoints.steps(), checkpoints.latest(), checkpoints.best()) == ([], None, None)
    for step, loss in enumerate([0.9, 0.2, 0.5, float("nan"), 0.4, 0.2]):
        checkpoints.save(step, state(step), {"eval_loss": loss})
    assert (checkpoints.steps(), checkpoints.latest(), checkpoints.best()) == ([1, 4, 5], 5, 1)
    assert float(checkpoints.restore(1, state(0))[0]["step"]) == 1
    checkpoints.save(6, state(6), {})
    assert checkpoints.steps() == [1, 5, 6]
    assert store.Store(tmp_path, keep_last=2, keep_best=("eval_loss", "max")).best() == 1
    checkpoints.save(7, state(7), {"eval_loss": 0.1})
    assert (checkpoints.steps(), checkpoints.best()) == ([6, 7], 7)


def test_without_a_metric_only_the_last_ones_are_kept(tmp_path):
    checkpoints = store.Store(tmp_path, keep_last=1)
    for step in (5, 10):
        checkpoints.save(step, state(step), {})
    assert (checkpoints.steps(), checkpoints.best()) == ([10], None)


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoints = store.Store(tmp_path, keep_last=1)
    checkpoints.save(4, state(1), {"which": 1})
    checkpoints.save(4, state(2), {"which": 2})
    tree, facts = checkpoints.restore(4, state(0))
    assert (float(tree["step"]), facts, os.listdir(tmp_path)) == (2, {"which": 2}, ["4"])


def test_a_replacement_that_was_killed_between_its_two_renames_is_undone(tmp_path):
    checkpoints = store.Store(tmp_path, keep_last=1)
    checkpoints.save(4, state(1), {})
    (tmp_path / "4").rename(tmp_path / "4.replaced")
    assert store.Store(tmp_path, keep_last=1).steps() == [4]


def test_half_made_checkpoints_are_not_seen_and_are_cleared_by_the_next_save(tmp_path):
    checkpoints = store.Store(tmp_path, keep_last=2)
    checkpoints.save(1, state(1), {})
    for left in ("2.tmp", "0.old"):
        (tmp_path / left).mkdir()
    assert checkpoints.steps() == [1]
    checkpoints.save(3, state(3), {})
    assert sorted(os.listdir(tmp_path)) == ["1", "3"]


def test_restored_arrays_lie_as_the_ones_that_are_asked_for(tmp_path):
    checkpoints = store.Store(tmp_path, keep_last=1)
    mesh = meshes.make(data=1, fsdp=4, tensor=2)
    lay = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))
    value = np.arange(32, dtype=np.float32).reshape(8, 4)
    checkpoints.save(
        1, {"w": jax.device_put(value, lay("fsdp", "tensor")), "key": jax.device_put(jax.random.key(1), lay())}, {}
    )
    for wanted in (lay("tensor", "fsdp"), lay(None, None), jax.sharding.SingleDeviceSharding(jax.devices()[3])):
        like = {"w": jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=wanted), "key": jax.random.key(0)}
        tree, _ = checkpoints.restore(1, like)
        assert tree["w"].sharding == wanted
        np.testing.assert_array_equal(tree["w"], value)
        np.testing.assert_array_equal(jax.random.key_data(tree["key"]), jax.random.key_data(jax.random.key(1)))


def test_what_had_no_place_of_its_own_has_none_after_restoring(tmp_path):
    """A count that was committed to device 0 could not enter a step whose weights lie on a mesh."""
    checkpoints = store.Store(tmp_path, keep_last=1)
    mesh = meshes.make(data=1, fsdp=4, tensor=2)
    weight = jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, PartitionSpec("fsdp")))
    like = {"w": weight, "count": jnp.int32(3), "key": jax.random.key(2)}
    checkpoints.save(1, like, {})
    for wanted in (like, jax.eval_shape(lambda: like) | {"w": weight}):
        tree, _ = checkpoints.restore(1, wanted)
        assert (tree["w"].committed, tree["count"].committed, tree["key"].committed) == (True, False, False)
        jax.jit(lambda t: t["w"] * t["count"] + jax.random.uniform(t["key"]))(tree)


def test_a_checkpoint_of_another_model_is_an_error_that_names_the_leaf(tmp_path):
    checkpoints = store.Store(tmp_path, keep_last=1)
    checkpoints.save(1, {"a": jnp.ones((2, 3)), "b": jnp.ones(2)}, {})
    with pytest.raises(UserError, match="lacks c and has b"):
        checkpoints.restore(1, {"a": jnp.ones((2, 3)), "c": jnp.ones(2)})
    with pytest.raises(UserError, match=r"a is \(2, 3\), this run has \(2, 4\)"):
        checkpoints.restore(1, {"a": jnp.ones((2, 4)), "b": jnp.ones(2)})
    with pytest.raises(UserError, match="no checkpoint of step 7; there are 1"):
        checkpoints.restore(7, {"a": jnp.ones((2, 3))})
    with pytest.raises(UserError, match="no checkpoint to restore"):
        store.Store(tmp_path / "new", keep_last=1).restore(None, {})


def test_a_full_disk_is_one_line_and_leaves_the_earlier_checkpoints(tmp_path):
    checkpoints = store.Store(tmp_path, keep_last=1)
    large = lambda step: {"w": jax.random.normal(jax.random.key(step), (500, 500))}
    checkpoints.save(1, large(1), {"ok": True})
    with full_disk(100_000), pytest.raises(UserError, match="no space left on the disk"):
        checkpoints.save(2, large(2), {})
    assert os.listdir(tmp_path) == ["1"]
    same(checkpoints.restore(None, large(0))[0], large(1))


def test_three_megabytes_are_saved_in_less_than_a_third_of_a_second_of_one_core(tmp_path):
    checkpoints = store.Store(tmp_path, keep_last=1)
    tree = {f"leaf{k}": jnp.ones((5, 100, 100)) for k in range(15)}
    seconds = []
    for step in range(4):
        start = time.process_time()
        checkpoints.save(step, tree, {})
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3


def test_orbax_is_imported_by_the_first_save_only():
    made = "import sys; from ftjax.checkpoint import store; store.Store('/nowhere', keep_last=1)"
    subprocess.run([sys.executable, "-c", f"{made}; assert 'orbax' not in sys.modules"], check=True)


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """Each of ten children restores what the one before left, checks it, and saves on until it is killed."""
    script = """
        import os, random, signal, sys, time, traceback, warnings
        warnings.simplefilter("ignore")
        import jax, jax.numpy as jnp, numpy as np
        from orbax.checkpoint import v1
        from ftjax.checkpoint import store

        def child(folder, ready):
            checkpoints = store.Store(folder, keep_last=2, keep_best=("step", "max"))
            shapes = {f"leaf{k}": jax.ShapeDtypeStruct((50_000,), jnp.float32) for k in range(8)}
            step = checkpoints.latest() or 0
            if step:
                tree, facts = checkpoints.restore(None, shapes)
                assert facts["step"] == step, facts
                assert all((np.asarray(leaf) == step).all() for leaf in tree.values())
                os.write(1, f"restored {step}\\n".encode())
            while True:
                step += 1
                tree = {name: jnp.full((50_000,), step, jnp.float32) for name in shapes}
                checkpoints.save(step, tree, {"step": step})
                os.write(ready, b"x")

        random.seed(0)
        for attempt in range(10):
            wait, ready = os.pipe()
            process = os.fork()
            if process == 0:
                try:
                    child(sys.argv[1], ready)
                except BaseException:
                    traceback.print_exc()
                os._exit(3)
            os.close(ready)
            assert os.read(wait, 1) == b"x"  # it has restored, checked and saved once; empty where it failed
            time.sleep(random.uniform(0.0, 0.25))
            os.kill(process, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    restored = [int(line.split()[1]) for line in out.stdout.splitlines() if line.startswith("restored")]
    assert len(restored) == 9, out.stdout
    assert restored == sorted(restored)
    assert json.loads((tmp_path / str(max(store.Store(tmp_path, keep_last=2).steps())) / "facts.json").read_text())
