"""Grading by hand: a page on this machine that shows the answers to one question after the other, and stores marks at once."""

import asyncio
import contextlib
import json
import re
import secrets
import webbrowser
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import tornado.web
from markupsafe import Markup
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.processes import holding
from dynot_lite.course import answers, marks, rendering
from dynot_lite.course.assignment import Assignment, Part, load, solution
from dynot_lite.course.marks import Mark

__all__ = ["Desk", "application", "mark"]

PAGES = Path(__file__).with_name("pages")
# Nothing is loaded but from this server, and no script runs but mark.js. Typeset formulas carry styles.
POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; style-src-attr 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Desk:
    """The answers of one grading, and the marks they get. ``blind`` hides names, and gives each question an order of its own."""

    def __init__(self, folder: Path, *, blind: bool = False):
        name, self.answers = answers.read(folder)
        self.folder, self.blind, self.assignment = folder, blind, load(name)
        self.marks = marks.read(folder, self.assignment)
        self.parts = {part.id: part for part in self.assignment.parts if part.manual}
        if any(part not in given for given in self.answers.values() for part in self.parts):
            raise NotebookError(f"{name} has other parts than when {folder} was graded: run course grade again first")
        length = 5
        while len({self.marks.pseudonym(one, length) for one in self.answers}) < len(self.answers):
            length += 1
        self.codes = {student: self.marks.pseudonym(student, length) for student in self.answers}
        self.students = {code: student for student, code in self.codes.items()}
        self.templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(PAGES), autoescape=True, undefined=jinja2.StrictUndefined
        )

    def order(self, part: str) -> list[str]:
        """The students in the order in which their answers to this question come."""
        if not self.blind:
            return sorted(self.answers, key=lambda one: (one.casefold(), one))
        return sorted(self.answers, key=lambda one: self.marks.pseudonym(f"{part}/{one}", 32))

    def state(self, student: str, part: str) -> str:
        """One of "waits", "changed", "empty" and "marked"."""
        state = self.marks.state(student, part, self.answers[student][part])
        return {marks.WAITS: "waits", marks.CHANGED: "changed", marks.EMPTY: "empty", "": "marked"}[state]

    def shown(self, student: str) -> str:
        """The name under which the page shows a student."""
        return self.codes[student] if self.blind else student

    def give(self, student: str, part: str, points: str, items: list[str], comment: str, confirmed: bool) -> Mark:
        """Store a mark. Points that are neither new nor confirmed stay those of the answer they were given for."""
        value = marks.number(points, self.parts[part].points, "points")
        before = self.marks.given.get((student, part), Mark())
        known = {text for _, text in marks.rubric(self.parts[part])}  # those of an earlier rubric are not on the page
        same = value == before.points and known.intersection(items) == known.intersection(before.items)
        answer = before.answer if same and not confirmed else self.answers[student][part].hash
        return self.marks.give(student, part, Mark(value, comment, tuple(items), answer))

    def index(self, root: str) -> str:
        """The page of all questions."""
        questions = []
        for part in self.parts.values():
            states = [self.state(student, part.id) for student in self.answers]
            given = [self.marks.given[who, part.id].points for who in self.answers if self.state(who, part.id) == "marked"]
            counts = {kind: states.count(kind) for kind in ("waits", "changed", "marked", "empty")}
            mean = f"{sum(filter(None, given)) / len(given):.1f}" if given else ""
            questions.append(counts | {"id": part.id, "title": part.label, "points": f"{part.points:g}", "mean": mean})
        return self._page(
            "index.html",
            root,
            title=self.assignment.title,
            students=len(self.answers),
            blind=self.blind,
            left=sum(one["waits"] + one["changed"] for one in questions),
            questions=questions,
            store=str(self.folder / marks.STORE),
            typesets=rendering.typesets(),
        )

    def next_waiting(self, part: str, after: str | None = None) -> str | None:
        """The student whose answer is the next to be marked, or to be looked at again."""
        order = self.order(part)
        start = order.index(after) + 1 if after else 0
        turned = [student for student in order[start:] + order[:start] if student != after]
        return next((student for student in turned if self.state(student, part) in ("waits", "changed")), None)

    def page(self, root: str, part: Part, student: str) -> str:
        """The page of one answer."""
        order, given = self.order(part.id), self.answers[student][part.id]
        mark, here, place = self.marks.given.get((student, part.id), Mark()), self.state(student, part.id), order.index(student)
        url = lambda who: f"{root}/{part.id}/{self.codes[who]}" if who is not None else ""
        items = [
            {"text": text, "points": f"{points:g}", "had": text in mark.items, "html": Markup(rendering.inline(text))}
            for points, text in marks.rubric(part)
        ]
        everybody = [
            {"url": url(one), "who": self.shown(one), "here": one == student, "kind": self.state(one, part.id)}
            | {"points": self.points(one, part.id), "state": self.marks.state(one, part.id, self.answers[one][part.id])}
            for one in order
        ]
        return self._page(
            "answer.html",
            root,
            question={"title": part.label},
            here=url(student),
            who=self.shown(student),
            number=place + 1,
            count=len(order),
            previous=url(order[place - 1] if place else None),
            next=url(order[place + 1] if place + 1 < len(order) else None),
            waiting=url(self.next_waiting(part.id, student)),
            changed=here == "changed",
            empty=given.empty,
            # In what the renderer made, all that it did not make itself is escaped.
            rendered=Markup(rendering.answer(given.pieces, lambda name: f"{root}/{answers.PICTURES}/{name}")),
            pieces=given.pieces,
            asked=Markup(self.texts[part.id][0]),
            solved=Markup(self.texts[part.id][1]),
            items=items,
            everybody=everybody,
            points=self.points(student, part.id),
            most=f"{part.points:g}",
            comment=mark.comment,
            saved=f"Stored {_local(mark.time)}." if mark.time else "",
        )

    def points(self, student: str, part: str) -> str:
        """The points of a mark as text; empty without one."""
        points = self.marks.given.get((student, part), Mark()).points
        return "" if points is None else f"{points:g}"

    @cached_property
    def texts(self) -> dict[str, tuple[str, str]]:
        """The question and the solution of each part, as HTML."""
        return {
            part.id: (rendering.markdown(_question(self.assignment, part)), self._solution(part)) for part in self.parts.values()
        }

    def _solution(self, part: Part) -> str:
        source = solution(self.assignment, part)
        return f'<div class="answer">{rendering.code(source) if part.code else rendering.markdown(source)}</div>'

    def _page(self, template: str, root: str, **values: Any) -> str:
        made = self.templates.get_template(template).render(root=root, name=self.assignment.name, **values)
        return made.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair, which is in a raw source, cannot be sent


def _local(time: str) -> str:
    return datetime.fromisoformat(time).astimezone().strftime("%d %b, %H:%M:%S")


def _question(assignment: Assignment, part: Part) -> str:
    """The text of a question: the Markdown from its heading to the cell of its answer."""
    cells, found = assignment.notebook.cells, []
    last = next(k for k, cell in enumerate(cells) if cell.metadata.get("nbgrader", {}).get("grade_id") == part.id)
    for cell in reversed(cells[:last]):
        found += [cell.source] if cell.cell_type == "markdown" else []
        if re.search(r"^#+ Part \d+\.", cell.source, re.MULTILINE):
            break
    return "\n\n".join(reversed(found))


class _Handler(tornado.web.RequestHandler):
    """Every request: from this machine, to an address that only the starter of the program knows."""

    def initialize(self, desk: Desk, root: str) -> None:
        self.desk, self.root = desk, root

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        # A page of another site can be made to have this address, but not to call itself by it.
        if self.request.host_name not in ("127.0.0.1", "localhost"):
            raise tornado.web.HTTPError(403)
        if self.request.headers.get("Origin", "null" if self.request.method == "GET" else self._own()) not in (
            "null",
            self._own(),
        ):
            raise tornado.web.HTTPError(403)

    def _own(self) -> str:
        return f"{self.request.protocol}://{self.request.host}"

    def write_error(self, status_code: int, **reason: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(
            {403: "Not from here.", 404: "There is no such page: use the address that the command printed."}.get(status_code, "?")
        )

    def part(self, name: str) -> Part:
        if name not in self.desk.parts:
            raise tornado.web.HTTPError(404)
        return self.desk.parts[name]

    def student(self, code: str) -> str:
        if code not in self.desk.students:
            raise tornado.web.HTTPError(404)
        return self.desk.students[code]


class _Nothing(_Handler):
    def prepare(self) -> None:
        super().prepare()
        raise tornado.web.HTTPError(404)


class _Index(_Handler):
    def get(self) -> None:
        self.finish(self.desk.index(self.root))


class _Question(_Handler):
    def get(self, part: str) -> None:
        order = self.desk.order(self.part(part).id)
        if not order:
            raise tornado.web.HTTPError(404)
        self.redirect(f"{self.root}/{part}/{self.desk.codes[self.desk.next_waiting(part) or order[0]]}")


class _Answer(_Handler):
    def get(self, part: str, code: str) -> None:
        self.finish(self.desk.page(self.root, self.part(part), self.student(code)))

    def post(self, part: str, code: str) -> None:
        name, student = self.part(part).id, self.student(code)
        try:
            asked = json.loads(self.request.body)
            points, comment, items = asked["points"], asked["comment"], asked["items"]
            if not all(isinstance(one, str) for one in (points, comment, *items)):
                raise TypeError
            mark = self.desk.give(student, name, points, items, comment, asked["confirmed"] is True)
        except (ValueError, TypeError, KeyError):
            self.set_status(400)
            return self.finish({"problem": "this is no mark"})
        except NotebookError as error:
            self.set_status(400)
            return self.finish({"problem": str(error)})
        except OSError as error:
            self.set_status(500)
            return self.finish({"problem": f"{self.desk.folder / marks.STORE} cannot be written ({error.strerror})"})
        kind = self.desk.state(student, name)
        said = f"Stored {_local(mark.time)}." if kind != "waits" else "Stored: not marked."
        return self.finish({"saved": said, "kind": kind, "changed": kind == "changed", "points": self.desk.points(student, name)})


class _File(_Handler):
    """The script, the style, and the pictures of answers, whose names are hashes."""

    def get(self, name: str) -> None:
        path = PAGES / name if name in ("mark.js", "mark.css") else self.desk.folder / answers.PICTURES / name
        kinds = {".js": "text/javascript", ".css": "text/css", ".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif"}
        if not path.is_file():
            raise tornado.web.HTTPError(404)
        self.set_header("Content-Type", kinds[path.suffix])
        self.finish(path.read_bytes() + (rendering.STYLE.encode() if name == "mark.css" else b""))


class _Finish(_Handler):
    def post(self) -> None:
        self.finish({})
        self.application.settings["finished"].set()


def application(desk: Desk, token: str) -> tornado.web.Application:
    """The pages, under an address that begins with ``token``."""
    root = f"/{token}"
    own = {"desk": desk, "root": root}
    routes = [
        (rf"{root}/?", _Index, own),
        (rf"{root}/finish", _Finish, own),
        (rf"{root}/(mark\.js|mark\.css)", _File, own),
        (rf"{root}/{answers.PICTURES}/([0-9a-f]{{32}}\.(?:png|jpg|gif))", _File, own),
        (rf"{root}/([a-z0-9-]+)", _Question, own),
        (rf"{root}/([a-z0-9-]+)/([A-Z0-9]+)", _Answer, own),
    ]
    settings = {"finished": asyncio.Event(), "log_function": lambda handler: None}
    return tornado.web.Application(routes, default_handler_class=_Nothing, default_handler_args=own, **settings)


def mark(folder: Path, *, blind: bool = False, port: int = 0, browser: bool = True) -> int:
    """Serve the page for the grading in ``folder`` until it is finished or interrupted, and give the number of marks there are.

    Raises NotebookError if nothing was graded there, if another process uses the folder, or if the port is taken.
    """
    if not folder.is_dir():
        raise NotebookError(f"no folder {folder}: it is the one that course grade writes to")
    if not 0 <= port < 2**16:
        raise NotebookError(f"port {port} cannot be used (there are 65535): choose another one, or none")
    with holding(folder):
        desk = Desk(folder, blind=blind)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(desk, port, browser))
        if (folder / marks.TABLE).exists():
            desk.marks.take(folder / marks.TABLE)
        desk.marks.write(desk.answers)
    return sum(one.points is not None for one in desk.marks.given.values())


async def _serve(desk: Desk, port: int, browser: bool) -> None:
    token = secrets.token_urlsafe(16).replace("_", "-").lstrip("-")
    made = application(desk, token)
    server = HTTPServer(made, max_body_size=2**20)
    try:
        sockets = bind_sockets(port, "127.0.0.1")
    except OSError as error:
        raise NotebookError(f"port {port} cannot be used ({error.strerror}): choose another one, or none") from None
    server.add_sockets(sockets)
    address = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/{token}/"
    print(f"{desk.assignment.name} is shown at {address}\nPress Finish there, or Ctrl-C here, when you are done.", flush=True)
    if browser:
        webbrowser.open(address)
    await made.settings["finished"].wait()
    await asyncio.sleep(0.2)  # the last reply is on its way
    server.stop()
