"""Who takes the course: a table of students, to which submissions are matched and by which absences are noticed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course.texts import first, key, read_table

__all__ = ["Person", "matches", "read"]

# What the columns are called in the tables that Canvas, Moodle, nbgrader and others give away.
COLUMNS: dict[str, tuple[str, ...]] = {
    "login": ("login", "username", "user name", "SIS Login ID", "login id", "net id", "student_id", "student"),
    "identifier": ("identifier", "id number", "SIS User ID", "student number", "matriculation number", "SID", "id"),
    "email": ("email", "e-mail", "email address", "mail"),
    "name": ("name", "full name", "student name"),
    "first_name": ("first name", "first_name", "given name"),
    "last_name": ("last name", "last_name", "surname", "family name"),
    "submitted": ("submitted", "submission time"),
}
# A folder of Moodle's "download all submissions": NAME_NUMBER_assignsubmission_file.
MOODLE = re.compile(r"^(?P<name>.+?)_\d+_assignsubmission_[a-z]+_?$")


@dataclass(frozen=True)
class Person:
    """A row of the roster; what it does not have is empty. ``row`` is the row as it stands in the file."""

    login: str = ""
    identifier: str = ""
    email: str = ""
    name: str = ""
    first_name: str = ""
    last_name: str = ""
    submitted: str = ""
    row: Mapping[str, str] | None = None

    @property
    def shown(self) -> str:
        """What to call a person who handed in nothing."""
        return self.login or self.name or self.email or self.identifier

    @property
    def unique(self) -> tuple[str, ...]:
        """What no two people share."""
        return self.login, self.identifier, self.email

    @property
    def names(self) -> tuple[str, ...]:
        """All by which a submission may name this person."""
        given, family = self.first_name, self.last_name
        local = self.email.split("@")[0]
        swapped = " ".join(reversed([part.strip() for part in self.name.split(",")]))  # "Lovelace, Ada"
        return (*self.unique, local, self.name, swapped, f"{given} {family}", f"{family} {given}")


def read(path: Path) -> list[Person]:
    """The people of the table in ``path``.

    Raises NotebookError if it has no column that names a student, or names one twice.
    """
    people = []
    for row in read_table(path):
        found = {field: first(row, *names) for field, names in COLUMNS.items()}
        if first(row, "SIS Login ID", "SIS User ID") or "Section" in row:  # Canvas writes the name into the column "Student"
            found["name"] = found["name"] or row.get("Student", "")
            found["login"] = first(row, "SIS Login ID")
        if not found["name"] and (found["first_name"] or found["last_name"]):
            found["name"] = f"{found['first_name']} {found['last_name']}".strip()
        person = Person(**found, row=row)
        if person.shown and person.shown != "Points Possible":
            people.append(person)
    if not people:
        wanted = ", ".join(names[0] for names in COLUMNS.values())
        raise NotebookError(f"{path} names no student: expected a header with some of the columns {wanted}")
    people = list({replace(person, row=None): person for person in people}.values())  # one who is in two sections is one
    seen: dict[str, Person] = {}
    for person in people:
        for one in {key(name) for name in person.unique if name}:
            if seen.setdefault(one, person) is not person:
                raise NotebookError(
                    f"{path}: {person.shown} and {seen[one].shown} have the same login, identifier or e-mail address"
                )
    return people


def matches(students: Sequence[str], people: Sequence[Person]) -> dict[str, Person]:
    """The person behind each name of a submission, where the roster leaves no doubt: one person, by any of its columns.

    A login, an identifier or an address is its owner's, also where another person has it as a name.
    """
    known: dict[str, set[int]] = {}
    for number, person in enumerate(people):
        for one in {key(name) for name in person.names} - {""}:
            known.setdefault(one, set()).add(number)
    known |= {key(name): {number} for number, person in enumerate(people) for name in person.unique if key(name)}
    found = {}
    for student in students:
        moodle = MOODLE.match(student)
        numbers = known.get(key(student)) or (known.get(key(moodle["name"])) if moodle else None) or set()
        if len(numbers) == 1:
            found[student] = people[next(iter(numbers))]
    return found
