"""Every command that writes × every awkward place: answered in one line before data are read, and nothing changed.

What the commands would read is not there, so that a place that is taken ends with a word on that instead.
"""

from __future__ import annotations

import json
import os
import shutil
import socket

import pytest
import typer
from click.testing import CliRunner
from safetensors import SafetensorError
from typer.main import get_command

from latentebm.cli.app import app
from latentebm.cli.console import errors_exit
from latentebm.disk.folders import run_folder
from latentebm.files import write_atomic

COMMANDS = {
    "debias": "debias --data absent.npz", "tilt": "tilt --model absent:build --reference absent.npz --features pca:2",
    "table": "table absent.csv --target sex", "plan": "plan absent", "shards": "sample absent --format png",
    "impute": "impute absent.csv", "ampute": "ampute absent.csv", "compare": "compare absent absent",
    "sample": "sample absent", "npy": "sample absent --format npy",
}  # fmt: skip
SUFFIX = {"impute": ".csv", "ampute": ".csv", "sample": ".npz", "npy": ".npy", "compare": ".html"}
APP = get_command(app)
RUNS = ("debias", "tilt", "table")  # what these write may be replaced as a whole
HERE, GONE = f"{socket.gethostname()} {os.getpid()}", f"{socket.gethostname()} 999999999"


def write(root, name, text="mine"):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def link(root, name, target):
    (root / name).symlink_to(target)


def earlier_run(root, name):
    write(root, f"{name}/config.json", json.dumps({"latentebm": "0", "manifest": {}}))
    write(root, f"{name}/samples.npz")
    (root / name).chmod(0o750)


# What is at a place of that name, which `s` ends where a file is written: refused whatever is asked for.
REFUSED = {
    "no name": lambda r, s: "",
    "below a file": lambda r, s: write(r, "file") or f"file/x{s}",
    "not writable": lambda r, s: f"/sys/x{s}",
    "not writable, either": lambda r, s: f"/proc/x{s}",
    "too long a name": lambda r, s: "n" * 256 + s,
    "too long a path": lambda r, s: "/".join(["n" * 100] * 50) + s,
    "dangling link": lambda r, s: link(r, f"x{s}", "/nowhere/at/all") or f"x{s}",
    "below a dangling link": lambda r, s: link(r, "to", "/nowhere/at/all") or f"to/x{s}",
    "links in a circle": lambda r, s: link(r, f"x{s}", f"x{s}") or f"x{s}",
    "of nobody": lambda r, s: f"~nobody-of-this-name/x{s}",
    "the other kind": lambda r, s: write(r, f"x{s}/mine" if s else "x") or f"x{s}",
    "being written": lambda r, s: write(r, f".x{s}.lock", HERE) or f"x{s}",
    "being written elsewhere": lambda r, s: write(r, f".x{s}.lock", "another-machine 1") or f"x{s}",
    "something else": lambda r, s: write(r, f"x{s}" if s else "x/mine") or f"x{s}",
}
TAKEN = {
    "new": lambda r, s: f"p/q/x{s}",
    "home": lambda r, s: f"~/x{s}",
    "odd name": lambda r, s: f"a b[red]é\n{s}",
    "left by a process that is gone": lambda r, s: write(r, f".x{s}.lock", GONE) or f"x{s}",
    "below a link": lambda r, s: (r / "real").mkdir() or link(r, "to", "real") or f"to/x{s}",
}
TAKEN_FOLDERS = {
    "here": lambda r, s: ".",
    "home itself": lambda r, s: "~",
    "empty": lambda r, s: (r / "x").mkdir() or "x",
    "link": lambda r, s: (r / "real").mkdir() or link(r, "x", "real") or "x",
}


def seen(root):
    """Names, modes, links and contents of all that is there, but for locks."""
    files = [p for p in root.rglob("*") if p.suffix != ".lock" or p.read_text() != GONE]
    return {
        str(p): (p.lstat().st_mode, os.readlink(p) if p.is_symlink() else p.read_text() if p.is_file() else "")
        for p in files
    }


def answer(root, monkeypatch, command, make, *more):
    """What a command says of a place."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(root))
    place = make(root, SUFFIX.get(command, ""))
    before = seen(root)
    result = CliRunner().invoke(APP, [*COMMANDS[command].split(), "--out", place, *more])
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert (result.exit_code, len(lines)) == (2, 1), (result.output, result.exception)
    assert seen(root) == before
    return place, lines[0]


@pytest.mark.parametrize("place", REFUSED)
@pytest.mark.parametrize("command", COMMANDS)
def test_places_that_cannot_be_written_are_refused_by_name(tmp_path, monkeypatch, command, place):
    if command == "plan" and place in ("something else", "being written", "being written elsewhere"):
        return  # its three files go beside others, and so does its lock
    name, said = answer(tmp_path, monkeypatch, command, REFUSED[place])
    assert "out: expected" in said
    assert name[:50] in said


@pytest.mark.parametrize("place", TAKEN)
@pytest.mark.parametrize("command", COMMANDS)
def test_other_places_are_taken(tmp_path, monkeypatch, command, place):
    assert "out: " not in answer(tmp_path, monkeypatch, command, TAKEN[place])[1]


@pytest.mark.parametrize("place", TAKEN_FOLDERS)
@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - SUFFIX))
def test_folders_are_taken(tmp_path, monkeypatch, command, place):
    assert "out: " not in answer(tmp_path, monkeypatch, command, TAKEN_FOLDERS[place])[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_overwriting_begins_only_where_something_of_ours_is(tmp_path, monkeypatch, command):
    def there(root, suffix):
        write(root, f"x{suffix}") if suffix else earlier_run(root, "x")
        return f"x{suffix}"

    if command in RUNS:
        assert "out: " in answer(tmp_path, monkeypatch, command, REFUSED["something else"], "--overwrite")[1]
        shutil.rmtree(tmp_path / "x")
    if command not in ("plan", "shards"):
        assert "out: expected" in answer(tmp_path, monkeypatch, command, there)[1]
        assert "out: " not in answer(tmp_path, monkeypatch, command, there, "--overwrite")[1]


READING = ("debias --data", "debias --reference", "debias --config", "debias --resume", "tilt --reference", "report",
           "compare", "impute --out x", "impute x --out x --report", "plan", "table x --out x --reference")  # fmt: skip


@pytest.mark.parametrize("words", READING)
def test_what_is_read_has_a_name(words):
    result = CliRunner().invoke(APP, [*words.split(), ""])
    assert result.exit_code == 2
    assert result.stderr.endswith(": expected a file or folder, got ''; name one\n")


@pytest.mark.parametrize("error", [OSError(28, "No space"), OSError("9 requested, 2 written"), SafetensorError("full")])
def test_a_full_disk_names_the_file_or_the_output(tmp_path, error, capsys):
    def fails(temporary):
        raise error

    with pytest.raises(typer.Exit), errors_exit():
        write_atomic(tmp_path / "a.bin", fails)
    assert "a.bin" in capsys.readouterr().err
    if error.args[0] == 28:  # without a file it is what was printed, which `main` says
        with pytest.raises(OSError, match="No space"), errors_exit():
            raise error


def test_what_changes_while_a_run_goes_on_is_not_lost(tmp_path):
    (tmp_path / "real").mkdir()
    link(tmp_path, "to", "real")
    with run_folder(tmp_path / "to", overwrite=False) as place:
        write(place.new, "a.txt")
        shutil.rmtree(tmp_path / "real")
    assert (tmp_path / "to" / "a.txt").read_text() == "mine"

    def meanwhile():
        with run_folder(tmp_path / "x", overwrite=False, job={}) as place:
            write(place.kept, "model")
            write(tmp_path, "x/theirs")

    with pytest.raises(ValueError, match="out: expected a folder"):
        meanwhile()
    assert (tmp_path / "x" / "theirs").read_text() == "mine"
    assert (tmp_path / ".x.unfinished" / "kept" / "model").read_text() == "mine"
