"""Sphinx configuration: MyST pages, the furo theme, Google-style docstrings."""

from importlib.metadata import version as installed_version
from typing import Any, ClassVar

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

project = "curricula"
author = "the curricula authors"
release = version = installed_version("curricula")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"curricula {release}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {"light_css_variables": {"code-font-size": "75%"}}  # 97 columns of code

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 90  # a longer one has a line for each parameter
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are fields of the class, not separate objects


class CommandHelp(SphinxDirective):
    """Show the help of a command of the ``curricula`` program: ``{command-help} plugins new``."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        from curricula.cli.main import program

        command: click.Command = program
        context = click.Context(program, info_name="curricula", max_content_width=80)
        for word in self.arguments[0].split():
            assert isinstance(command, click.Group)
            found = command.get_command(context, word)
            assert found is not None, f"no command {word!r}"
            command = found
            context = click.Context(command, parent=context, info_name=word, max_content_width=80)
        text = command.get_help(context)
        return [nodes.literal_block(text, text, language="none")]


def plain_defaults(
    app: Sphinx, what: str, name: str, documented: Any, options: Any, signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:  # fmt: skip
    """Write a function as a default as ``...``, so that Sphinx can parse the signature."""
    return signature and signature.replace("<function <lambda>>", "..."), returned


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", plain_defaults)
    app.add_directive("command-help", CommandHelp)
