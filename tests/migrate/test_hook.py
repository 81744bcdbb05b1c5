"""`ckpt.migrating`: plain `load_state_dict` accepts old state_dicts, and is strict as ever."""

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ckpt
from ckpt.errors import UsageError
from ckpt.migrate.hook import MigratedWarning
from tests.migrate.classes import NEW, both_forms, class_in

Forms = tuple[Any, Any]
pytestmark = [
    pytest.mark.filterwarnings("ignore::ckpt.migrate.hook.MigratedWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
]


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Forms:
    return both_forms(tmp_path_factory.mktemp("project"))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one process."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def trained(old: Any, **sizes: int) -> nn.Module:
    """A module whose buffers are not those of a new one either."""
    torch.manual_seed(0)
    module = old(**sizes)
    module(torch.randn(4, 1, 8, 8))
    return module.eval()


def expect_same(old: nn.Module, new: nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        assert torch.allclose(old(images), new.eval()(images), atol=1e-6)
    assert torch.equal(old.norm.running_mean, new.embed[1].running_mean)  # type: ignore[union-attr,index]


@pytest.mark.parametrize("sizes", [{}, {"width": 9, "depth": 5}, {"depth": 1}], ids=str)
def test_an_old_state_dict_loads(forms: Forms, images: torch.Tensor, sizes: dict[str, int]) -> None:
    old, new = trained(forms[0], **sizes), forms[1](**sizes)
    assert str(new.load_state_dict(old.state_dict())) == "<All keys matched successfully>"
    expect_same(old, new, images)


def test_the_warning_names_the_migration_and_the_line_of_the_call(forms: Forms) -> None:
    state = trained(forms[0]).state_dict()
    with pytest.warns(MigratedWarning, match="Net: .* by new-blocks") as caught:
        forms[1]().load_state_dict(state)
    assert caught[0].filename == __file__


def test_what_fits_is_loaded_without_a_word(forms: Forms) -> None:
    state = forms[1]().state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forms[1]().load_state_dict(state)


@pytest.mark.parametrize("change", ["missing", "unexpected", "reshaped"])
def test_what_no_migration_knows_is_refused_as_ever(forms: Forms, change: str) -> None:
    state = trained(forms[0]).state_dict()
    if change == "missing":
        del state["fc.bias"]
    elif change == "unexpected":
        state["more"] = torch.zeros(1)
    else:
        state["fc.weight"] = torch.zeros(3, 6)
    new = forms[1]()
    before = copy.deepcopy(new.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key|Unexpected key|size mismatch"):
        new.load_state_dict(state)
    assert all(torch.equal(value, before[key]) for key, value in new.state_dict().items()
               if key.startswith("layers"))  # fmt: skip


def as_part(old: nn.Module, new: Any) -> tuple[nn.Module, nn.Module]:
    """In a larger model, twice."""
    whole, there = nn.ModuleDict({"a": old, "b": old}), nn.ModuleDict({"a": new(), "b": new()})
    there.load_state_dict(whole.state_dict())
    assert torch.equal(there["a"].fc.weight, there["b"].fc.weight)  # type: ignore[arg-type]
    return old, there["b"]


def through_data_parallel(old: nn.Module, new: Any) -> tuple[nn.Module, nn.Module]:
    made = new()
    made.load_state_dict(nn.DataParallel(old).state_dict())
    return old, made


def into_data_parallel(old: nn.Module, new: Any) -> tuple[nn.Module, nn.Module]:
    made = nn.DataParallel(new())
    made.load_state_dict(nn.DataParallel(old).state_dict())
    return old, made.module


def compiled(old: nn.Module, new: Any) -> tuple[nn.Module, nn.Module]:
    made = new()
    made.load_state_dict(torch.compile(old).state_dict())  # type: ignore[attr-defined]
    other = torch.compile(new())
    other.load_state_dict(torch.compile(old).state_dict())  # type: ignore[attr-defined]
    assert torch.equal(other.fc.weight, made.fc.weight)  # type: ignore[attr-defined]
    return old, made


def copied(old: nn.Module, new: Any) -> tuple[nn.Module, nn.Module]:
    made = copy.deepcopy(new())
    made.load_state_dict(old.state_dict())
    return old, made


def pickled(old: nn.Module, new: Any) -> tuple[nn.Module, nn.Module]:
    made = pickle.loads(pickle.dumps(new()))  # noqa: S301 (made here)
    made.load_state_dict(old.state_dict())
    return old, made


def assigned(old: nn.Module, new: Any) -> tuple[nn.Module, nn.Module]:
    with torch.device("meta"):
        made = new()
    made.load_state_dict(old.state_dict(), assign=True)
    made.scale = torch.ones(1)
    return old, made


def decorated_twice(old: nn.Module, new: Any) -> tuple[nn.Module, nn.Module]:
    made = ckpt.migrating(new())
    made.load_state_dict(old.state_dict())
    return old, made


WAYS = (
    as_part, through_data_parallel, into_data_parallel, compiled, copied, pickled, assigned,
    decorated_twice,
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_it_works(forms: Forms, images: torch.Tensor, way: Callable[..., Any]) -> None:
    expect_same(*way(trained(forms[0]), forms[1]), images)


def test_a_file_that_is_mapped_into_memory(
    forms: Forms, images: torch.Tensor, tmp_path: Path
) -> None:
    old, new = trained(forms[0]), forms[1]()
    torch.save(old.state_dict(), tmp_path / "old.pt")
    new.load_state_dict(torch.load(tmp_path / "old.pt", mmap=True))
    expect_same(old, new, images)


@pytest.mark.usefixtures("alone")
def test_distributed_data_parallel(forms: Forms, images: torch.Tensor) -> None:
    old = trained(forms[0])
    new = nn.parallel.DistributedDataParallel(forms[1]())
    new.load_state_dict({f"module.{key}": value for key, value in old.state_dict().items()})
    expect_same(old, new.module, images)


@pytest.mark.usefixtures("alone")
def test_fully_sharded_modules(forms: Forms) -> None:
    from torch.distributed.checkpoint.state_dict import set_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, distribute_tensor

    mesh = init_device_mesh("cpu", (1,))
    old, new = trained(forms[0]), forms[1]()
    fully_shard(new, mesh=mesh)
    sharded = {name for name, _ in old.named_parameters()}
    state = {key: distribute_tensor(value, mesh) if key in sharded else value
             for key, value in old.state_dict().items()}  # fmt: skip
    set_model_state_dict(new, state)
    weight = new.fc.weight
    assert isinstance(weight, DTensor)
    assert torch.equal(weight.full_tensor(), old.fc.weight)  # type: ignore[union-attr]
    third = old.blocks[0].weight.chunk(3)[1]  # type: ignore[union-attr,index]
    assert torch.equal(new.layers[0].k.weight.full_tensor(), third)


def test_load_and_load_into(forms: Forms, images: torch.Tensor, tmp_path: Path) -> None:
    old, new = trained(forms[0]), forms[1]()
    torch.save(old.state_dict(), tmp_path / "old.pt")
    state = ckpt.load(tmp_path / "old.pt", to=forms[1])
    assert list(state) == list(new.state_dict())
    ckpt.load_into(new, tmp_path / "old.pt")
    expect_same(old, new, images)
    del state["fc.bias"]
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(ckpt.errors.FitError, match="does not fit Net"):  # type: ignore[attr-defined]
        ckpt.load_into(new, tmp_path / "cut.pt")


HEAD = "class Net(nn.Module):\n"
NUMBERED = NEW.replace(HEAD, HEAD + "    ckpt_schema = 1\n")
SWAPPED = NEW.replace(HEAD, HEAD + "    ckpt_schema = 2\n").replace(
    "self.q(hidden) * self.k(hidden).sigmoid()", "self.k(hidden) * self.q(hidden).sigmoid()"
)


def test_a_change_of_meaning_needs_a_number(tmp_path: Path, images: torch.Tensor) -> None:
    numbered = NEW.replace(
        "class Net(nn.Module):\n", "class Net(nn.Module):\n    ckpt_schema = 1\n"
    )
    old = class_in(tmp_path / "old" / "net.py", numbered)
    new = class_in(tmp_path / "net.py", SWAPPED)
    rules = [{"at_once": [r"\.q\.->.k.", r"\.k\.->.q."]}]
    from ckpt.rules.document import read_rules

    ckpt.new_migration(
        f"{tmp_path / 'net.py'}:Net", f"{tmp_path / 'old' / 'net.py'}:Net",
        read_rules(rules, name="the rules"), message="query is key",
    )  # fmt: skip
    before, after = old().eval(), new().eval()
    torch.save(before.state_dict(), tmp_path / "old.pt")
    after.load_state_dict(torch.load(tmp_path / "old.pt"))
    with torch.no_grad():
        assert torch.allclose(before(images), after(images), atol=1e-6)
    # The class's own state_dict says its number, and stays as it is.
    again = new()
    again.load_state_dict(after.state_dict())
    assert torch.equal(again.layers[0].q.weight, after.layers[0].q.weight)
    # Without a number nothing tells which form it is.
    with pytest.raises(RuntimeError, match="two ways lead there"):
        new().load_state_dict(dict(before.state_dict()))


def test_a_class_and_its_base_both_migrate(forms: Forms, images: torch.Tensor) -> None:
    """The base's migrations serve the class as long as it has the base's keys."""
    old = trained(forms[0])
    derived = ckpt.migrating(type("Derived", (forms[1],), {"__module__": forms[1].__module__}))
    new = derived()
    new.load_state_dict(old.state_dict())
    expect_same(old, new, images)


def test_load_finds_the_folder_that_a_module_names(forms: Forms, tmp_path: Path) -> None:
    old, elsewhere = trained(forms[0]), tmp_path / "elsewhere"
    new = class_in(tmp_path / "project" / "net.py", NEW.replace("@ckpt.migrating\n", ""))
    from ckpt.migrate.hook import place_of_class
    from ckpt.migrate.migration import write_migration

    for migration in place_of_class(forms[1]).migrations():
        named = replace(migration, definitions=("project/net.py:Net",))
        write_migration(elsewhere, named)
    torch.save(old.state_dict(), tmp_path / "old.pt")
    module = ckpt.migrating(new(), folder=elsewhere)
    ckpt.load_into(module, tmp_path / "old.pt")
    assert torch.equal(module.fc.weight, old.fc.weight)  # type: ignore[union-attr]


def test_a_checkpoint_of_another_meaning_is_refused(tmp_path: Path) -> None:
    """torch alone would load it, since all keys fit."""
    new = class_in(tmp_path / "new" / "net.py", SWAPPED)
    old = class_in(tmp_path / "old" / "net.py", NUMBERED)
    torch.save(new().state_dict(), tmp_path / "new.pt")
    with pytest.raises(RuntimeError, match="ckpt_schema is 2, expected 1; no way leads there"):
        old().load_state_dict(torch.load(tmp_path / "new.pt"))


def test_a_lazy_module_is_left_to_torch() -> None:
    made = ckpt.migrating(nn.Sequential(nn.LazyLinear(3)))
    made.load_state_dict(nn.Sequential(nn.Linear(2, 3)).state_dict())
    assert made[0].weight.shape == (3, 2)


def test_a_class_without_a_file_is_told_to_name_a_folder() -> None:
    made: dict[str, Any] = {"nn": nn}
    exec("class Net(nn.Linear):\n    pass\n", made)
    module = ckpt.migrating(made["Net"](2, 2))
    with pytest.raises(RuntimeError, match="Python does not know its file"):
        module.load_state_dict({"old": torch.zeros(1)})


def test_load_names_what_cannot_be_loaded_to(forms: Forms, tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save(forms[0]().state_dict(), path)
    for to, says in (
        ("net.py:Net", "to= is str, expected a torch.nn.Module"),
        (dict, "to= is dict, expected a torch.nn.Module"),
        (torch.nn.Linear, "Linear cannot be built without arguments"),
    ):
        with pytest.raises(UsageError, match=says):
            ckpt.load(path, to=to)  # type: ignore[arg-type]


def test_only_modules_and_their_classes_can_be_decorated() -> None:
    with pytest.raises(ckpt.errors.UsageError, match=r"is not a torch\.nn\.Module"):  # type: ignore[attr-defined]
        ckpt.migrating(3)
