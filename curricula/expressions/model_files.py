"""Models of Python files: ``mynet.py:MyNet`` as a user names one, ``file("mynet.py", MyNet)`` as a
configuration does."""

import ast
import re
from pathlib import Path

from curricula.errors import UserError, shortened, similar_names
from curricula.expressions.syntax import Argument, Call, Quoted, parse_call, quotable
from curricula.plugins import registry
from curricula.runtime.files import similar_path

FILE = "file"  # name of the model that a file defines
WEIGHTS = (".pt", ".pth", ".safetensors", ".bin", ".ckpt")  # endings of files with weights
MAX_NAMES = 3  # names of a file in a message
_NAMED = re.compile(r"(?P<path>.+\.py):(?P<call>.*)", re.DOTALL)
_OF_MODULE = re.compile(r"([^:()]+?)(?:\.py)?(?:::?|\.|/)([A-Za-z_]\w*)(\(.*\))?", re.DOTALL)


def names_file(text: str) -> bool:
    """Return whether a text names a model of a file, as ``mynet.py:MyNet`` does.

    >>> names_file("mynet.py:MyNet(width=4)"), names_file("lenet")
    (True, False)
    """
    return _NAMED.fullmatch(text) is not None and not text.startswith(f"{FILE}(")


def named_model(text: str) -> str:
    """Return the expression of a model that the user named: of ``mynet.py:MyNet`` it is
    ``file("mynet.py", MyNet)``. The file is loaded, which runs its code.

    A text from a configuration must not come here, since it may be someone else's.

    Raises:
        UserError: no such file, a broken one, or no name of a class or function.
    """
    if names_file(text):
        path, _, written = text.partition(".py:")
        path += ".py"
        outer, bracket, inner = path.rpartition("(")
        if bracket and ")" not in inner and quotable(inner) and not Path(path).is_file():
            name, *_ = re.split(r"\W", written, maxsplit=1)
            raise UserError(
                f"model {shortened(text)}: inside of {shortened(outer)} write "
                f'{FILE}("{inner}", {name or "NAME"}), and name the file by --plugin {inner}'
            )
        if not quotable(path):
            raise UserError(f"model {shortened(text)}: the path cannot be written; rename the file")
        if not written:
            raise UserError(f"model {shortened(text)}: name its class or function: {path}:NAME")
        call = parse_call(written)
        expression = str(
            Call(FILE, (Argument(Quoted(path)), Argument(Call(call.name)), *call.arguments))
        )
    elif text.lstrip().startswith(FILE):
        call = parse_call(text)
        if call.name != FILE:
            return text
        path, _, _ = parts_of(call)
        expression = text
    else:
        return text
    registry.current().add_file(Path(path))
    return expression


def model_meant(text: str) -> str:
    """Return the fix for a text that names no model: the models that it may mean of a Python file,
    which is read and not run, or of another library; an empty text if there are none.

    >>> model_meant("squeezenet1_1"), model_meant("net.pt")[:30]
    ('did you mean torchvision(squeezenet1_1)?', 'it is a file of weights: name ')
    """
    if text.endswith(WEIGHTS):
        return (
            "it is a file of weights: name them with weights (--weights), and their network with "
            "model (--model)"
        )
    path = Path(text)
    if path.suffix == ".py" and not path.is_file():
        return f"there is no such file{similar_path(path, path.parent.glob('*.py'))}"
    meant = _of_file(path, "") if path.suffix == ".py" else []
    if match := _OF_MODULE.fullmatch(text):
        module, name, arguments = match.groups()
        meant = meant or [each + (arguments or "") for each in _of_file(_file_of(module), name)]
    meant = meant or _of_file(_file_of(text), "")
    last = re.split(r"[.:/]", text)[-1]
    for name in (text, last):
        meant = meant or registry.current().calls_for("model", name)
    return f"did you mean {' or '.join(meant)}?" if meant else ""


def model_flags(path: Path) -> tuple[str, ...]:
    """Return the flags that name a model, where a path that should be a run's folder names one or
    its weights; none otherwise.

    >>> model_flags(Path("lenet")), model_flags(Path("mynet.py:MyNet"))
    (('--model', 'lenet'), ('--model', 'mynet.py:MyNet'))
    """
    if path.suffix in WEIGHTS and path.is_file():
        return "--model", "MODEL", "--weights", str(path)
    if path.suffix == ".py" and path.is_file():
        return "--model", next(iter(_of_file(path, "")))
    text = str(path)
    is_model = names_file(text) or text in registry.current().records("model")
    return ("--model", text) if is_model and not path.exists() else ()


def _file_of(module: str) -> Path:
    """Return the file of a module by its name or its path without ``.py``."""
    return Path(f"{module if '/' in module else module.replace('.', '/')}.py")


def _of_file(path: Path, name: str) -> list[str]:
    """Return ``FILE.py:NAME`` for the classes of networks in a Python file, or else its classes and
    functions; if one has a given name or one like it, for that one alone. None if there is no such
    file."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, ValueError):
        return []
    except SyntaxError:
        return [f"{path}:NAME"]
    networks: list[str] = []
    others: list[str] = []
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            bases = [ast.unparse(base) for base in getattr(node, "bases", [])]
            is_network = any(base.endswith("Module") or base in networks for base in bases)
            (networks if is_network else others).append(node.name)
    if name in (*networks, *others):
        return [f"{path}:{name}"]
    known = networks or others or ["NAME"]
    similar = similar_names(name, known)
    return [f"{path}:{each}" for each in (similar or known)[:MAX_NAMES]]


def parts_of(call: Call) -> tuple[str, str, tuple[Argument, ...]]:
    """Return the path, the name and the further arguments of ``file("mynet.py", MyNet, ...)``.

    Raises:
        UserError: the call has a different form.
    """
    match call.arguments:
        case (
            Argument(value=Quoted(path), key=None),
            Argument(value=Call(name=name, arguments=()), key=None),
            *rest,
        ):
            return path, name, tuple(rest)
    raise UserError(
        f'model {shortened(call)}: write {FILE}("FILE.py", NAME), or FILE.py:NAME on the command '
        "line, with the arguments of its class or function"
    )
