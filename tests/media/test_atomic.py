import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lipdub import process
from lipdub.errors import OutputError
from lipdub.media import atomic as module
from lipdub.media.atomic import AtomicOutput


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_all_at_once(tmp_path):
    target = tmp_path / "a.mp4"
    with AtomicOutput(target, overwrite=False) as output:
        assert output.temporary.parent == tmp_path
        assert output.temporary.suffix == ".mp4"
        output.temporary.write_text("new")
        output.scratch("picture.mov").write_text("x")
        assert not target.exists()
    assert target.read_text() == "new"
    assert left(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failure_keeps_what_was_there(tmp_path, error):
    target = tmp_path / "a.mp4"
    target.write_text("old")
    with pytest.raises(error), AtomicOutput(target, overwrite=True) as output:
        output.temporary.write_text("half")
        output.scratch("picture.mov").write_text("x")
        raise error
    assert target.read_text() == "old"
    assert left(tmp_path) == ["a.mp4"]


def test_neighbours_are_left_alone(tmp_path):
    (tmp_path / ".a.0000.part.mp4").write_text("of another run")
    with AtomicOutput(tmp_path / "a.mp4", overwrite=False) as output:
        output.temporary.write_text("new")
    assert left(tmp_path) == [".a.0000.part.mp4", "a.mp4"]


def test_an_existing_file_is_kept(tmp_path):
    (tmp_path / "a.mp4").write_text("old")
    with pytest.raises(OutputError, match="exists") as caught, AtomicOutput(tmp_path / "a.mp4", overwrite=False):
        pytest.fail("entered")
    assert caught.value.exit_code == 5
    assert left(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("kind", ["same", "symlink", "hardlink", "relative"])
def test_the_input_is_no_output(tmp_path, kind, monkeypatch):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    source.write_text("precious")
    if kind == "same":
        target = source
    elif kind == "symlink":
        target.symlink_to(source)
    elif kind == "hardlink":
        os.link(source, target)
    else:
        monkeypatch.chdir(tmp_path)
        target = Path("./in.mp4")
    with pytest.raises(OutputError, match="is the input"), AtomicOutput(target, overwrite=True, inputs=[source]):
        pytest.fail("entered")
    assert source.read_text() == "precious"


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.mp4").write_text("old")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "real" / "a.mp4")
    with AtomicOutput(tmp_path / "link.mp4", overwrite=True) as output:
        output.temporary.write_text("new")
    assert (tmp_path / "link.mp4").is_symlink()
    assert (tmp_path / "real" / "a.mp4").read_text() == "new"
    assert left(tmp_path / "real") == ["a.mp4"]


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    for path, words in [
        (tmp_path / "folder.mp4", "is a folder"),
        (tmp_path / "nowhere" / "a.mp4", "does not exist"),
        (Path("/proc/a.mp4"), "cannot write"),
    ]:
        with pytest.raises(OutputError, match=words), AtomicOutput(path, overwrite=True):
            pytest.fail("entered")


def test_nothing_written(tmp_path):
    with pytest.raises(OutputError, match="nothing was written"), AtomicOutput(tmp_path / "a.mp4", overwrite=False):
        pass
    assert left(tmp_path) == []


def test_somebody_else_was_faster(tmp_path):
    with pytest.raises(OutputError, match="meanwhile"), AtomicOutput(tmp_path / "a.mp4", overwrite=False) as output:
        output.temporary.write_text("ours")
        (tmp_path / "a.mp4").write_text("theirs")
    assert (tmp_path / "a.mp4").read_text() == "theirs"
    assert left(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("name", ["x" * 250 + ".mp4", "漢" * 80 + ".mp4", " .mp4", "-a.mp4", "a\nb.mp4"])
def test_odd_names(tmp_path, name):
    with AtomicOutput(tmp_path / name, overwrite=False) as output:
        output.temporary.write_text("new")
    assert left(tmp_path) == [name]


def test_scratch_stays_in_the_folder(tmp_path):
    output = AtomicOutput(tmp_path / "a.mp4", overwrite=False)
    for name in ("../x", "/etc/x", ""):
        with pytest.raises(ValueError, match="plain"):
            output.scratch(name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_leave_nothing(tmp_path, number):
    (tmp_path / "a.mp4").write_text("old")
    code = (
        "import sys, time; from pathlib import Path; from lipdub.media.atomic import AtomicOutput\n"
        "from lipdub import process; process.own()\n"
        "with AtomicOutput(Path(sys.argv[1]), overwrite=True) as output:\n"
        "    output.temporary.write_text('half'); print('ready', flush=True); time.sleep(30)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.mp4")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process.stdout as ready:
        assert ready.readline() == b"ready\n"
        process.send_signal(number)
        status = process.wait(20)
    assert status in (128 + number, -number)
    assert left(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "old"


def test_a_check_refuses_the_same_and_writes_nothing(tmp_path):
    AtomicOutput(tmp_path / "a.mp4", overwrite=False).check()
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.mp4").write_bytes(b"old")
    with pytest.raises(OutputError, match="exists"):
        AtomicOutput(tmp_path / "a.mp4", overwrite=False).check()
    AtomicOutput(tmp_path / "a.mp4", overwrite=True).check()
    with pytest.raises(OutputError, match="is the input"):
        AtomicOutput(tmp_path / "a.mp4", overwrite=True, inputs=[tmp_path / "a.mp4"]).check()
    assert (tmp_path / "a.mp4").read_bytes() == b"old"


def test_a_check_notices_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("lipdub.media.atomic.os.access", lambda folder, mode: False)
    with pytest.raises(OutputError, match="cannot write into"):
        AtomicOutput(tmp_path / "a.mp4", overwrite=False).check()


def test_what_a_killed_run_left_is_cleared_and_nothing_else(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from lipdub.media.atomic import AtomicOutput\n"
        "with AtomicOutput(Path(sys.argv[1]), overwrite=True) as output:\n"
        "    output.temporary.write_text('half'); output.scratch('picture.mov').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    target = tmp_path / "a.mp4"
    assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == -signal.SIGKILL
    old = {*left(tmp_path)}
    assert len(old) == 2
    mine = [".b.0123abcd.part.mp4", ".a.notahash.part.mp4", "a.0123abcd.part.mp4", ".a.0123abcd.mp4", "a.txt"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".a.0123abcd.part.folder").mkdir()
    with AtomicOutput(target, overwrite=True) as first:
        assert not old & {*left(tmp_path)}
        with AtomicOutput(target, overwrite=True) as second:  # the first is alive: its files stay
            assert first.temporary.exists() and first.temporary != second.temporary
            second.temporary.write_text("second")
        first.temporary.write_text("first")
    assert target.read_text() == "first"
    assert left(tmp_path) == sorted(["a.mp4", ".a.0123abcd.part.folder", *mine])


def test_an_interrupt_that_was_lost_on_its_way_still_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.mp4"
    target.write_bytes(b"old")
    monkeypatch.setattr(process, "received", [])
    monkeypatch.setattr(module, "received", process.received)
    with pytest.raises(KeyboardInterrupt), AtomicOutput(target, overwrite=True) as output:
        output.temporary.write_bytes(b"new")
        with contextlib.suppress(KeyboardInterrupt):  # as Python does where it is in a finaliser
            process.leave(signal.SIGINT)
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_handlers_of_a_caller_are_not_touched(tmp_path: Path) -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = [signal.getsignal(number) for number in numbers]
    with AtomicOutput(tmp_path / "out.mp4", overwrite=True) as output:
        assert [signal.getsignal(number) for number in numbers] == before
        output.temporary.write_bytes(b"new")
