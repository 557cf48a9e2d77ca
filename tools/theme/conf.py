"""How Sphinx makes the site of the pages that tools/website.py wrote beside this file."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "ftkit"
author = "the authors of ftkit"
html_title = "ftkit"
extensions = ["myst_parser"]
myst_heading_anchors = 6
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["myst.header"]  # lessons and documents may begin a part at any level
exclude_patterns = ["_theme", "_doctrees"]
html_theme = "furo"
html_static_path = ["_theme"]
html_favicon = "_theme/icon.svg"
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_copyright = False
html_copy_source = False
html_math_renderer = "mathml"  # by the browser itself, since MathJax would come from the web


def setup(app):
    """Formulas as MathML, written by docutils."""

    def inline(writer, node):
        writer.body.append(tex2mathml(node.astext()))
        raise nodes.SkipNode

    def block(writer, node):
        writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
