"""`ckpt migrate`: what a person types, and what is printed."""

import json
from pathlib import Path

import pytest
import torch

from tests.cli.support import Run
from tests.migrate.classes import NEW, OLD, class_in

MIGRATION = "migrations/new-blocks.toml"
RULES = r"""
[[rules]]
rename = '^conv1\.->embed.0.'
[[rules]]
rename = '^norm\.->embed.1.'
[[rules]]
split = '^blocks\.(\d+)\.'
into = ['layers.\1.q.', 'layers.\1.k.', 'layers.\1.v.']
"""


@pytest.fixture
def old_file(folder: Path) -> Path:
    """`old.pt` of the class before its refactoring; `net.py` is the class after it."""
    old = class_in(folder / "released" / "net.py", OLD)
    torch.manual_seed(0)
    torch.save(old().state_dict(), folder / "old.pt")
    (folder / "net.py").write_text(NEW)
    (folder / "rules.toml").write_text(RULES)
    return folder / "old.pt"


@pytest.fixture
def migrated(ckpt: Run, old_file: Path) -> Run:
    """The same, with the migration."""
    ran = ckpt(
        "migrate", "new", "net.py:Net", "--from", "old.pt", "-m", "new blocks",
        "--rules", "rules.toml",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return ckpt


def test_a_new_migration_is_a_file_to_commit(migrated: Run, folder: Path) -> None:
    text = (folder / MIGRATION).read_text()
    assert "definition = 'net.py:Net'" in text
    assert "    'blocks.{i}.weight  18 6'," in text
    assert "    'layers.{i}.q.weight  6 6'," in text
    listed = migrated("migrate", "ls", "net.py:Net")
    assert "new-blocks" in listed.out
    assert migrated("migrate", "check", "net.py:Net").out == "1 migration in migrations: all good\n"


def test_without_rules_they_are_inferred(ckpt: Run, folder: Path) -> None:
    old = class_in(folder / "old.py", OLD)
    torch.save(old().state_dict(), folder / "old.pt")
    (folder / "net.py").write_text(OLD.replace("conv1", "embed"))
    ran = ckpt("migrate", "new", "net.py:Net", "--from", "old.pt")
    assert ran.code == 0, ran.err
    assert "wrote migrations/conv1-to-embed.toml" in ran.out


def test_a_checkpoint_is_migrated_and_its_source_is_not_touched(
    migrated: Run, old_file: Path
) -> None:
    before = old_file.read_bytes()
    ran = migrated("migrate", "run", "old.pt", "--to", "net.py:Net")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("by new-blocks\n")
    assert "fits net.py:Net" in ran.out
    assert old_file.read_bytes() == before
    again = migrated("migrate", "run", "old.renamed.pt", "--to", "net.py:Net")
    assert again.out == "old.renamed.pt fits net.py:Net as it is\n"


def test_the_way_back_to_a_released_class(migrated: Run, folder: Path) -> None:
    assert migrated("migrate", "run", "old.pt", "--to", "net.py:Net", "-o", "new.pt").code == 0
    ran = migrated(
        "migrate", "run", "new.pt", "--to", "released/net.py:Net", "--by", "net.py:Net",
        "-o", "back.pt",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.out.startswith("back by new-blocks\n")
    old, back = (torch.load(folder / name) for name in ("old.pt", "back.pt"))
    assert old.keys() == back.keys()
    assert all(torch.equal(value, back[key]) for key, value in old.items())


def test_a_version_is_migrated_to_the_next_one(migrated: Run) -> None:
    assert migrated("register", "old.pt", "--name", "net").code == 0
    ran = migrated("migrate", "run", "net", "--to", "net.py:Net")
    assert ran.code == 0, ran.err
    assert "net:v2" in ran.out


def test_json(migrated: Run) -> None:
    run = json.loads(migrated("migrate", "run", "old.pt", "--to", "net.py:Net", "--json").out)
    assert run["migrations"] == ["new-blocks"]
    assert run["back"] is False
    shown = json.loads(migrated("migrate", "show", "net.py:Net", "new-blocks", "--json").out)
    assert shown["checked"] == {"how": "fitted", "on": ["net.py:Net"]}
    found = json.loads(migrated("migrate", "check", "net.py:Net", "--json").out)
    assert found["findings"] == []


def test_what_cannot_be_done_is_one_line(migrated: Run, folder: Path) -> None:
    torch.save({"other": torch.zeros(1)}, folder / "other.pt")
    unknown = migrated("migrate", "run", "other.pt", "--to", "net.py:Net")
    assert unknown.code == 3
    assert "other.pt does not fit net.py:Net" in unknown.err
    needless = migrated("migrate", "new", "net.py:Net", "--from", "old.pt")
    assert needless.code == 2
    assert "new-blocks leads there already" in needless.err
    assert "to see what it does:  ckpt migrate show net.py:Net new-blocks" in needless.err
    fits = migrated("migrate", "new", "net.py:Net", "--from", "net.py:Net")
    assert fits.code == 2
    assert "nothing to migrate" in fits.err
    unnamed = migrated("migrate", "run", "old.pt")
    assert unnamed.code == 2
    assert "--to DEF" in unnamed.err
    entered = migrated("migrate", "run", "old.pt", "--to", "net.py:Net", "--enter", "nothing")
    assert entered.code == 2
    assert "no migration 'nothing'" in entered.err


def test_the_same_folded_keys_need_a_number(ckpt: Run, folder: Path) -> None:
    swap = NEW.replace("self.q(hidden) * self.k(hidden)", "self.k(hidden) * self.q(hidden)")
    class_in(folder / "old.py", NEW)
    (folder / "net.py").write_text(swap)
    ran = ckpt("migrate", "new", "net.py:Net", "--from", "old.py:Net", "--rule", ".q.<->.k.")
    assert ran.code == 3
    assert "ckpt_schema = 2" in ran.err


def test_dry_run_shows_the_file_as_it_would_be(ckpt: Run, old_file: Path, folder: Path) -> None:
    words = ["migrate", "new", "net.py:Net", "--from", "old.pt", "--rules", "rules.toml"]
    ran = ckpt(*words, "--dry-run")
    assert ran.code == 0, ran.err
    assert not (folder / "migrations").exists()
    assert ckpt(*words).code == 0
    (path,) = (folder / "migrations").iterdir()
    assert ran.out.endswith("\n\n" + path.read_text())


def test_migrations_are_found_beside_the_guarded_class(migrated: Run, folder: Path) -> None:
    (folder / "models").mkdir()
    for name in ("net.py", "migrations"):
        (folder / name).rename(folder / "models" / name)
    ran = migrated("migrate", "ls")
    assert (ran.code, "no such folder" in ran.err) == (2, True)
    (folder / "pyproject.toml").write_text("[tool.ckpt]\nguard = ['models/net.py:Net']\n")
    assert "new-blocks" in migrated("migrate", "ls").out
    assert migrated("migrate", "show", "new-blocks").out.startswith("new-blocks  net.py:Net\n")
    shown = migrated("migrate", "show", "other")
    assert (shown.code, shown.err.splitlines()[1]) == (2, "hint:  there are: new-blocks")
    assert migrated("migrate", "show", "a", "b", "c").code == 2
    (folder / "other" / "migrations").mkdir(parents=True)
    guard = "guard = ['models/net.py:Net', {definition = 'other/net.py:Net'}]"
    (folder / "pyproject.toml").write_text(f"[tool.ckpt]\n{guard}\n")
    ran = migrated("migrate", "ls")
    assert ran.code == 2
    assert "name one:  models/migrations  or  other/migrations" in ran.err


def test_class_of_other_sizes_is_told_from_a_missing_migration(migrated: Run, folder: Path) -> None:
    ran = migrated("migrate", "run", "old.pt", "--to", "net.py:Net", "--arg", "width=4")
    assert ran.code == 3
    assert "old.pt fits net.py:Net --arg width=4 by new-blocks but for sizes: " in ran.err
    assert ran.err.splitlines()[1] == "hint:  build the class with other arguments"


def test_configurations_of_a_class_make_keys_optional(ckpt: Run, folder: Path) -> None:
    text = (
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self, bias=True):\n"
        "        super().__init__()\n"
        "        self.old = nn.Linear(2, 3, bias=bias)\n"
    )
    class_in(folder / "old.py", text)
    (folder / "net.py").write_text(text.replace("self.old", "self.new"))
    ran = ckpt("migrate", "new", "net.py:Net", "--from", "old.py:Net",
               "--also", "net.py:Net(bias=False)")  # fmt: skip
    assert ran.code == 0, ran.err
    written = (folder / "migrations" / "old-to-new.toml").read_text()
    assert "'? old.bias  3'" in written
    assert "'? new.bias  3'" in written
    old = class_in(folder / "old.py", text)
    torch.save(old(bias=False).state_dict(), folder / "bare.pt")
    ran = ckpt("migrate", "run", "bare.pt", "--to", "net.py:Net", "--arg", "bias=False")
    assert ran.code == 0, ran.err


BROKEN = {
    "cut": (lambda text: text[: len(text) // 2], "at end of document"),
    "no rules": (lambda text: text.replace("rules =", "rulez ="), "unknown field 'rulez'"),
    "bad pattern": (lambda text: text.replace(r"^conv1\.->", "^conv1(->"), "rule 1"),
    "no shape": (lambda text: text.replace("'fc.bias  10'", "'fc.bias'"), "'fc.bias' is not a key"),
    "no index": (lambda text: text.replace("{i}", "{i"), "is not an index"),
    "twice": (lambda text: text.replace("'fc.bias  10'", "'fc.weight  10 6'"), "occurs twice"),
    "number": (lambda text: text.replace("[after]", "[after]\nckpt_schema = 'x'"), "ckpt_schema"),
    "blocks": (lambda text: text.replace("= 2 }", "= 1000000000 }"), "blocks"),
    "how": (lambda text: text.replace("'fitted'", "'believed'"), "believed"),
    "empty": (lambda _: "", "has no"),
    "deep": (lambda text: "x = " + "[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_migration_is_one_line_with_its_place(
    migrated: Run, folder: Path, kind: str
) -> None:
    change, said = BROKEN[kind]
    path = folder / MIGRATION
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text
    for words in (["ls"], ["check"], ["run", "old.pt", "--to", "net.py:Net"]):
        ran = migrated("migrate", *words, *([] if words[0] == "run" else ["net.py:Net"]))
        assert ran.code == 3, (words, ran.out, ran.err)
        assert said in ran.err
        assert "new-blocks.toml" in ran.err


def test_check_finds_rules_that_do_not_lead_there(migrated: Run, folder: Path) -> None:
    path = folder / MIGRATION
    path.write_text(path.read_text().replace("->embed.1.", "->embed.2."))
    ran = migrated("migrate", "check", "net.py:Net")
    assert ran.code == 1
    assert (
        "its rules do not lead from its before to its after: unexpected embed.2.weight" in ran.out
    )


def test_check_finds_a_gap(migrated: Run, folder: Path) -> None:
    (folder / "net.py").write_text(NEW.replace("self.fc", "self.head"))
    ran = migrated("migrate", "check", "net.py:Net")
    assert ran.code == 1
    assert "no way leads on from it to the class" in ran.out
    assert "head.weight" in ran.out


def test_check_finds_a_cycle(migrated: Run, folder: Path) -> None:
    assert migrated("migrate", "run", "old.pt", "--to", "net.py:Net", "-o", "new.pt").code == 0
    text = (folder / MIGRATION).read_text()
    head, after = text.split("[after]")
    head, before = head.split("[before]")
    head = head[: head.index("rules = [")] + (
        "rules = [{ rename = '^embed\\.0\\.->conv1.' }, { rename = '^embed\\.1\\.->norm.' }, "
        "{ concat = ['^layers\\.(\\d+)\\.q\\.', '^layers\\.(\\d+)\\.k\\.', "
        "'^layers\\.(\\d+)\\.v\\.'], into = 'blocks.\\1.' }]\n" + head[head.index("[checked]") :]
    )
    (folder / "migrations" / "back.toml").write_text(f"{head}[before]{after}[after]{before}")
    ran = migrated("migrate", "check")
    assert ran.code == 1, ran.out
    assert "leads back to the schema where it begins" in ran.out


def test_a_pattern_that_runs_too_long_is_stopped(migrated: Run, folder: Path) -> None:
    path = folder / MIGRATION
    slow = r"^(a|aa)+$->x"
    text = path.read_text().replace(r"^conv1\.->embed.0.", slow)
    path.write_text(text.replace("'fc.bias  10'", f"'{'a' * 60}b  10'"))
    ran = migrated("migrate", "check", "net.py:Net")
    assert ran.code == 1
    assert "took over" in ran.out


def test_both_classes_are_run_where_both_are_at_hand(old_file: Path, ckpt: Run) -> None:
    words = ["migrate", "new", "net.py:Net", "--from", "released/net.py:Net", "-m", "new blocks"]
    ran = ckpt(*words, "--rules", "rules.toml")
    assert ran.code == 0, ran.err
    assert "proved: outputs agree on one input" in ran.out
    assert "how = 'proved'" in (old_file.parent / MIGRATION).read_text()


def test_rules_under_which_the_outputs_differ_are_refused(
    old_file: Path, ckpt: Run, folder: Path
) -> None:
    (folder / "rules.toml").write_text(
        RULES.replace("1.q.', 'layers.\\1.k.", "1.k.', 'layers.\\1.q.")
    )
    words = ["migrate", "new", "net.py:Net", "--from", "released/net.py:Net", "-m", "new blocks"]
    ran = ckpt(*words, "--rules", "rules.toml")
    assert ran.code == 3
    assert "give different outputs" in ran.err
    assert "--no-prove" in ran.err
    assert not (folder / MIGRATION).exists()
    assert ckpt(*words, "--rules", "rules.toml", "--no-prove").code == 0
    assert "how = 'fitted'" in (folder / MIGRATION).read_text()


def test_blocks_that_multiply_are_refused(migrated: Run, folder: Path) -> None:
    path = folder / MIGRATION
    line = "'blocks.{i}.weight  18 6',"
    text = path.read_text().replace(line, line.replace("{i}", "{i}.{j}.{k}"), 1)
    counts = ", ".join(f"'blocks.{name}' = 10000" for name in ("{i}", "{i}.{j}", "{i}.{j}.{k}"))
    path.write_text(text.replace("blocks = { 'blocks.{i}' = 2 }", f"blocks = {{ {counts} }}"))
    ran = migrated("migrate", "check", "net.py:Net")
    assert ran.code == 3
    assert "the limit is 250,000" in ran.err


def test_export_prints_or_writes_a_module(migrated: Run, folder: Path) -> None:
    words = ("migrate", "export", "net.py:Net", "--as")
    printed = migrated(*words, "torch")
    assert printed.code == 0, printed.err
    written = migrated(*words, "torch", "-o", "net_migrations.py")
    assert written.out == (
        "wrote net_migrations.py  1 migration, 1 earlier form\ntest it:  pytest net_migrations.py\n"
    )
    assert (folder / "net_migrations.py").read_text() == printed.out
    assert "ckpt" not in {line.split()[1] for line in printed.out.splitlines()
                          if line.startswith(("import ", "from "))}  # fmt: skip
    again = migrated(*words, "lightning", "-o", "net_migrations.py")
    assert again.code == 2
    assert "net_migrations.py: already exists" in again.err
    assert migrated(*words, "lightning", "-o", "net_migrations.py", "--force").code == 0
    assert json.loads(migrated(*words, "torch", "--json").out)["migrations"] == ["new-blocks"]


def test_export_names_what_a_target_cannot_express(migrated: Run, folder: Path) -> None:
    ran = migrated("migrate", "export", "net.py:Net", "--as", "vllm", "-o", "mapper.py")
    assert (ran.code, ran.out) == (3, "")
    assert "error: new-blocks: split '^blocks" in ran.err
    assert "--as torch" in ran.err
    assert not (folder / "mapper.py").exists()


def test_export_without_a_migration_is_refused(ckpt: Run, old_file: Path) -> None:
    ran = ckpt("migrate", "export", "net.py:Net", "--as", "torch")
    assert ran.code == 2
    assert "no migrations in" in ran.err


def test_rename_and_diff_use_the_migrations(migrated: Run, folder: Path) -> None:
    """The rules in the file say which part is the query; inference could only guess that."""
    undecorated = NEW.replace("@ckpt.migrating\n", "")
    (folder / "net.py").write_text(undecorated)
    ran = migrated("diff", "old.pt", "net.py:Net")
    assert ran.code == 0, ran.err
    assert ran.out.endswith(
        "To make it fit, by new-blocks:  ckpt migrate run old.pt --to net.py:Net\n"
    )
    assert migrated("diff", "old.pt", "net.py:Net", "--json").data["fit"]["by"] == "new-blocks"
    ran = migrated("rename", "old.pt", "--rule", "fc->head", "--check", "net.py:Net")
    assert ran.code == 3
    assert "ckpt migrate run SRC --to net.py:Net  makes it fit, by new-blocks" in ran.err
    ran = migrated("rename", "old.pt", "--to", "net.py:Net", "-o", "renamed.pt")
    assert (ran.code, "\n  by new-blocks\n" in ran.out) == (0, True)
    assert migrated("migrate", "run", "old.pt", "--to", "net.py:Net", "-o", "new.pt").code == 0
    one, other = torch.load("renamed.pt"), torch.load("new.pt")
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    ran = migrated("rename", "old.pt", "--rule", "^norm->embed.1", "--to", "net.py:Net",
                   "--dry-run", "--json")  # fmt: skip
    assert ran.data["migrations"] == []  # these begin with other keys
    (folder / MIGRATION).write_text("rules = [")
    ran = migrated("rename", "old.pt", "--to", "net.py:Net", "--force")
    assert (ran.code, "new-blocks.toml" in ran.err) == (3, True)
