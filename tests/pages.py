"""A parser of the web pages that the course writes."""

import html.parser


class Page(html.parser.HTMLParser):
    """A page's links, what it loads, its tags, headings, pictures (description to address) and anchors."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.loaded, self.headings, self.pictures, self.places = [], [], [], [], {}, set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.places |= {values["id"]} if "id" in values else set()
        if tag == "a":
            self.links.append(values["href"])
        else:
            named = ("src", "href", "srcset", "action", "data", "poster")
            self.loaded += [values[name] for name in named if name in values]
        if tag == "img":
            self.pictures[values["alt"]] = values["src"]

    def handle_data(self, text):
        if self.lasttag in ("h1", "h2", "h3") and text.strip():
            self.headings.append(text)
