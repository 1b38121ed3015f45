"""Run a sweep by several workers on one PostgreSQL, and compare with one run by a single worker.

    python tests/tools/sweep_workers.py [--seed 0] [--seeds 3] [--keep FOLDER]

PostgreSQL is Debian's, started on the loopback interface in a temporary folder, as an unprivileged
user if the script runs as root. Each worker has a separate folder. Some workers are killed by
SIGKILL at random moments; one is stopped by SIGSTOP for longer than its lease, and continued once
another worker has taken over its cell; and the server is restarted in the middle. Once the others
have ended, the killed ones begin again: the database may have accepted the results of a cell that
they had not published. Then every cell must have been published once, by one worker, and the
results and tables of all folders must equal those of the single worker. The exit status is 1 on any
difference.
"""

import argparse
import contextlib
import multiprocessing
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import sqlalchemy

TESTS = Path(__file__).parents[1]
TINY = TESTS / "fixtures" / "tiny.py"
POSTGRESQL = "/usr/lib/postgresql"  # where Debian's package has the binaries of each version
USER, PASSWORD = "curricula", "se:cr/et@"  # the password has what a URL must quote
MAX_WAIT = 120  # seconds for each thing that is waited for
POLL = 0.2  # seconds between two looks of a worker at the cells of others
PROCESSES = multiprocessing.get_context("forkserver")

SWEEP = """
[base]
data = "tiny"
epochs = {epochs}
perturb = "rot+pgd"
device = "cpu"
precision = "float32"
compile = "off"

[axes]
seed = {seeds}

[axes.curriculum]
constant = {{ schedule = ["constant"] }}
ramp = {{ schedule = ["linear"], objective = "trades" }}

[evaluation]
limit = 60
"""


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's binaries, of the newest version; None without any, or
    without the program that starts them."""
    if shutil.which("setpriv") is None:
        return None
    found = sorted(Path(POSTGRESQL).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).parent


@attrs.define
class Server:
    """A PostgreSQL server in its own folder.

    Attributes:
        bin: the folder of its binaries.
        folder: the folder of its data.
        port: the port that it listens on.
    """

    bin: Path
    folder: Path
    port: int
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """The URL of its database."""
        url = sqlalchemy.URL.create(
            "postgresql", USER, PASSWORD, "127.0.0.1", self.port, "postgres"
        )
        return url.render_as_string(hide_password=False)

    def run(self, *command: object) -> "subprocess.Popen[bytes]":
        """Start one of its programs, as an unprivileged user if this is root; it ends with this
        process."""
        user = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        words = ["setpriv", "--pdeathsig=KILL", *user, self.bin / str(command[0]), *command[1:]]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(word) for word in words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "shared_buffers": "4MB",
            "max_connections": 50,
            "dynamic_shared_memory_type": "mmap",
            "fsync": "off",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self._process = self.run("postgres", "-D", self.folder / "data", *options)
        wait_for(lambda: answers(self.url), f"PostgreSQL; see {self.folder / 'log'}")

    def stop(self) -> None:
        """Stop the server; its connections end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None


def answers(url: str) -> bool:
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.connect():
            return True
    except sqlalchemy.exc.OperationalError:
        return False
    finally:
        engine.dispose()


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """Make a PostgreSQL server, run it inside the block, and delete it.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    found = binaries()
    if found is None:
        raise FileNotFoundError(f"PostgreSQL is missing: no {POSTGRESQL}/*/bin/initdb or setpriv")
    with tempfile.TemporaryDirectory(prefix="postgresql-") as temporary:
        folder = Path(temporary)
        (folder / "password").write_text(PASSWORD)
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for path in (folder, folder / "password"):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        running = Server(found, folder, port)
        made = running.run(
            "initdb", "-D", folder / "data", "-U", USER, "-A", "scram-sha-256",
            "--pwfile", folder / "password", "--no-sync", "-E", "UTF8", "--locale", "C",
        )  # fmt: skip
        if made.wait():
            sys.exit((folder / "log").read_text())
        try:
            running.start()
            yield running
        finally:
            running.stop()


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Return the value of a function once it is true."""
    end = time.monotonic() + MAX_WAIT
    while not (found := condition()):
        if time.monotonic() > end:
            sys.exit(f"waited {MAX_WAIT} seconds for {what}")
        time.sleep(0.02)
    return found


def work(text: str, out: Path, url: str | None, lease: int, log: Path) -> None:
    """Run a sweep as one worker, with short attacks, and write its messages to a file."""
    import torch

    from curricula.evaluation import threats
    from curricula.plugins import registry
    from curricula.sweeps import runner
    from curricula.sweeps.spec import parse_sweep

    torch.set_num_threads(1)
    os.environ["CURRICULA_LEASE"] = str(lease)
    registry.use(registry.build_registry([TINY]))
    runner.POLL_SECONDS = POLL
    threats.TEST_STEPS, threats.VALIDATION_STEPS = 4, 2
    with log.open("a") as stream:
        runner.run_sweep(
            parse_sweep(text),
            out,
            storage=url,
            on_message=lambda line: print(line, file=stream, flush=True),
        )


@attrs.define
class Worker:
    """A process that runs a sweep in its own folder."""

    folder: Path
    process: Any = None

    @property
    def out(self) -> Path:
        return self.folder / "sweep"  # the same name for all, which names the sweep in the database

    @property
    def messages(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def start(self, text: str, url: str | None, lease: int) -> None:
        self.folder.mkdir(exist_ok=True)
        arguments = (text, self.out, url, lease, self.folder / "log")
        self.process = PROCESSES.Process(target=work, args=arguments)
        self.process.start()

    def join(self) -> None:
        self.process.join(MAX_WAIT)
        if self.process.exitcode != 0:
            sys.exit(f"{self.folder}: exit status {self.process.exitcode}; {self.messages}")


def rows(url: str) -> dict[str, tuple[str, int, str]]:
    """Return the state, token and path of each cell in the database."""
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.connect() as connection:
            query = sqlalchemy.text("SELECT cell, state, token, path FROM curricula_cells")
            return {cell: (state, token, path) for cell, state, token, path in
                    connection.execute(query)}  # fmt: skip
    except sqlalchemy.exc.ProgrammingError:  # no table yet
        return {}
    finally:
        engine.dispose()


def held_by(url: str, worker: Worker) -> tuple[str, int] | None:
    """Return the cell that a worker runs now, and the number of the attempt; None without any."""
    path = str(worker.out.resolve())
    return next(
        ((cell, token) for cell, (state, token, where) in rows(url).items()
         if state == "running" and where == path),
        None,
    )  # fmt: skip


def stop_in_a_cell(url: str, worker: Worker) -> tuple[str, int]:
    """Stop a worker while it runs a cell, and return the cell and the number of its attempt."""
    while True:
        held = wait_for(lambda: held_by(url, worker), f"{worker.folder} to run a cell")
        os.kill(worker.process.pid, signal.SIGSTOP)
        time.sleep(0.1)
        if held_by(url, worker) == held:
            return held
        os.kill(worker.process.pid, signal.SIGCONT)  # it had just finished


def contents(out: Path) -> dict[str, bytes]:
    """Return the files of a sweep that its runs repeat bit for bit, by path."""
    names = ("config.toml", "metrics.jsonl", "evaluation.json", "data.json")
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.name in names and not path.parent.name.startswith(".")
    }


def table(out: Path) -> list[dict[str, Any]]:
    """Return the rows of a sweep's comparison, without what takes time."""
    import curricula

    compared = curricula.compare(out)
    assert not compared.pending, f"{out}: {compared.pending} cells are missing"
    return [
        {key: value for key, value in record.items() if key != "minutes"}
        for record in compared.records()
    ]


def problems(workers: list[Worker], alone: Worker, url: str) -> list[str]:
    """Return what differs from the sweep of a single worker, one text for each difference."""
    found = []
    cells = sorted(path.name for path in (alone.out / "cells").iterdir() if path.name[0] != ".")
    known = rows(url)
    for cell in cells:
        folders = [worker.out / "cells" / cell for worker in workers]
        published = [path for path in folders if (path / "best.safetensors").exists()]
        if known[cell][0] != "done" or len(published) != 1:
            found.append(f"{cell}: {known[cell][0]}, published in {published}")
    for worker in workers:
        if contents(worker.out) != contents(alone.out):
            found.append(f"{worker.out}: files differ from those of {alone.out}")
        if table(worker.out) != table(alone.out):
            found.append(f"{worker.out}: the table differs")
        hidden = [path.name for path in (worker.out / "cells").iterdir() if path.name[0] == "."]
        found += [f"{worker.out}: {name} is left" for name in hidden if not name.endswith(".lock")]
    for worker in workers:
        for path in worker.folder.rglob("*"):
            if path.is_file() and PASSWORD.encode() in path.read_bytes():
                found.append(f"{path}: it has the password")
    return found


def check(
    folder: Path, running: Server, *, kills: int, seeds: int, epochs: int, lease: int, seed: int
) -> list[str]:
    """Run a sweep by two workers and by some that are killed and begin again, and return what went
    wrong."""
    text = SWEEP.format(seeds=list(range(seeds)), epochs=epochs)
    PROCESSES.set_forkserver_preload(["sqlalchemy", "torch", "curricula.api.training",
                                      "curricula.sweeps.runner"])  # fmt: skip
    draws, url = random.Random(seed), running.url
    alone = Worker(folder / "alone")
    alone.start(text, None, lease)
    alone.join()
    workers = [Worker(folder / f"worker-{number}") for number in range(2 + kills)]
    stopped, other, *killed = workers
    try:
        for worker in (stopped, *killed):
            worker.start(text, url, lease)
        held = stop_in_a_cell(url, stopped)
        for worker in killed:
            stop_in_a_cell(url, worker)
        other.start(text, url, lease)
        for worker in killed:
            os.kill(worker.process.pid, signal.SIGCONT)
            time.sleep(draws.uniform(0, 0.5))
            worker.process.kill()
        wait_for(lambda: other.messages, f"{other.folder} to begin")
        running.stop()
        time.sleep(draws.uniform(0.5, 1.0))
        running.start()
        wait_for(lambda: rows(url)[held[0]][1] > held[1], f"another worker to take {held[0]}")
        time.sleep(draws.uniform(0, 0.5))
        os.kill(stopped.process.pid, signal.SIGCONT)
        for worker in (stopped, other):
            worker.join()
        for worker in killed:
            worker.process.join()
            worker.start(text, url, lease)
            worker.join()
    finally:
        for worker in workers:
            if worker.process is not None and worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGKILL)
    found = problems(workers, alone, url)
    said = [f"{held[0]}: another worker has taken it over", "results of other workers' cells"]
    for line in said:
        if not any(line in message for message in stopped.messages):
            found.append(f"{stopped.folder}: said nothing of {line!r}: {stopped.messages}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="first seed of the random moments")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--keep", type=Path, help="folder of the workers' folders, to be kept")
    arguments = parser.parse_args()
    ok = True
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            began = time.monotonic()
            folder = (arguments.keep or Path(temporary)) / str(seed)
            folder.mkdir(parents=True)
            with server() as running:
                found = check(folder, running, kills=2, seeds=4, epochs=6, lease=3, seed=seed)
                attempts = {cell: token for cell, (_, token, _) in rows(running.url).items()}
            ok = ok and not found
            print(
                f"seed {seed}: {len(attempts)} cells, {sum(attempts.values())} attempts, "
                f"{len(found)} problems, {time.monotonic() - began:.0f} s",
                flush=True,
            )
            for line in found:
                print(f"    {line}", flush=True)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
