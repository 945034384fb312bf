"""What every page that we write must be: whole, with nothing fetched from outside and nothing that runs."""

import html.parser

VOID = {"meta", "br", "wbr"}
SHAPES = {"rect", "line", "circle", "polyline"}  # of SVG; these alone may close themselves


def _elements(page):
    """Returns every element of a page with its attributes; each is closed where it was opened last."""
    found, still_open = [], []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, dict(attrs)))
            if tag not in VOID:
                still_open.append(tag)

        def handle_startendtag(self, tag, attrs):
            assert tag in VOID | SHAPES
            found.append((tag, dict(attrs)))

        def handle_endtag(self, tag):
            if tag not in VOID:
                assert still_open.pop() == tag

    Reader().feed(page)
    assert still_open == []
    return found


def assert_stands_alone(page):
    """Asserts that a page is whole, fetches nothing and runs no script."""
    found = _elements(page)
    assert not {tag for tag, _ in found} & {"script", "link", "img", "iframe", "object", "embed", "form"}
    attributes = {name for _, attrs in found for name in attrs}
    assert not attributes & {"src", "href", "srcdoc", "action"}
    assert not {name for name in attributes if name.startswith("on")}
    style = page.partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
