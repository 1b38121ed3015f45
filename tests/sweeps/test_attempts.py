"""The folders of attempts: continued as copies, published by one rename."""

import pytest

from curricula.errors import UserError
from curricula.sweeps import attempts
from curricula.sweeps.attempts import attempt_folder, begin, forget_attempts, publish, results_of

NAME = "lr=1e+30,a=[b]"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cells").mkdir()
    return tmp_path


def write(path, **files):
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)


def test_an_attempt_continues_a_copy_of_the_latest_one_and_shares_nothing_with_it(folder):
    write(attempt_folder(folder, NAME, 1), config_toml="1", last_safetensors="1")
    write(attempt_folder(folder, NAME, 4), config_toml="4", last_safetensors="4", _lock="")
    write(attempt_folder(folder, "another", 9), config_toml="9")
    path = begin(folder, NAME, 6, "test")
    assert path == attempt_folder(folder, NAME, 6)
    assert {each.name: each.read_text() for each in path.iterdir()} == {
        "config.toml": "4", "last.safetensors": "4",
    }  # fmt: skip
    write(attempt_folder(folder, NAME, 4), config_toml="changed")  # its worker is not dead
    assert (path / "config.toml").read_text() == "4"
    assert begin(folder, NAME, 6, "test") == path


def test_a_copy_that_was_interrupted_is_not_continued(folder, monkeypatch):
    write(attempt_folder(folder, NAME, 1), config_toml="1", last_safetensors="1")
    with monkeypatch.context() as patched:
        patched.setattr(attempts, "read_file", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            begin(folder, NAME, 2, "test")
    assert not attempt_folder(folder, NAME, 2).exists()
    path = begin(folder, NAME, 3, "test")
    assert (path / "last.safetensors").read_text() == "1"
    write(path, evaluation_json="[]")
    publish(folder, NAME, path)
    assert [each.name for each in (folder / "cells").iterdir()] == [NAME]


def test_the_checkpoint_is_copied_before_the_metrics(folder, monkeypatch):
    """While a checkpoint is copied, its worker writes the next epoch."""
    earlier = attempt_folder(folder, NAME, 1)
    write(earlier, last_safetensors="1", metrics_jsonl="1")
    read = attempts.read_file

    def read_and_write(path):
        content = read(path)
        write(earlier, last_safetensors="2", metrics_jsonl="1 2")
        return content

    monkeypatch.setattr(attempts, "read_file", read_and_write)
    path = begin(folder, NAME, 2, "test")
    assert (path / "last.safetensors").read_text() == "1"
    assert (path / "metrics.jsonl").read_text() == "1 2"


def test_a_published_cell_without_results_is_continued_and_one_with_results_left_alone(folder):
    published = folder / "cells" / NAME
    write(published, config_toml="1")
    path = begin(folder, NAME, 3, "test")
    assert not published.exists()
    assert (path / "config.toml").read_text() == "1"
    write(path, evaluation_json="[]")
    publish(folder, NAME, path)
    assert begin(folder, NAME, 4, "test") == published
    assert begin(folder, NAME, 4, "validation") != published


def test_the_failure_of_an_attempt_does_not_stay_in_the_next(folder):
    write(attempt_folder(folder, NAME, 1), config_toml="1", failed_json="{}")
    assert "failed.json" not in results_of(begin(folder, NAME, 2, "test"), "test")
    write(folder / "cells" / NAME, config_toml="1", failed_json="{}")
    forget_attempts(folder, NAME)
    assert not begin(folder, NAME, 3, "test").exists()  # it is deleted first


def test_a_cell_that_another_worker_has_published_is_not_published_again(folder):
    path = attempt_folder(folder, NAME, 1)
    with pytest.raises(UserError, match="cannot be written"):
        publish(folder, NAME, path)
    write(folder / "cells" / NAME, config_toml="1")
    publish(folder, NAME, path)
    write(path, config_toml="2")
    with pytest.raises(UserError, match="cannot be written"):
        publish(folder, NAME, path)
    assert (folder / "cells" / NAME / "config.toml").read_text() == "1"


def test_nothing_is_written_or_deleted_through_a_link(folder, tmp_path):
    write(tmp_path / "elsewhere", precious_txt="1")
    (folder / "cells" / f".{NAME}.2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a symbolic link"):
        begin(folder, NAME, 3, "test")
    forget_attempts(folder, NAME)
    assert (tmp_path / "elsewhere" / "precious.txt").exists()
