# SPDX-License-Identifier: Apache-2.0
"""`typing.NamedTuple` for programs that must start quickly and stay small.

The standard library's compiles a constructor for each class, and imports `typing`. The runtime has more than
a hundred such classes and makes instances of every second one: here a constructor is compiled with the first
instance, which saves 8 ms and 0.6 MB.
"""

from __future__ import annotations

from operator import itemgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:

    class _Kind(type):
        """Makes fields of the annotations in the body of a class; values there are defaults."""

        def __new__(mcs, name, bases, namespace):
            fields = tuple(namespace.get("__annotations__", ()))
            if fields:
                optional = tuple(field for field in fields if field in namespace)
                if optional != fields[len(fields) - len(optional) :]:
                    raise TypeError(f"{name}: a field without a default follows one with a default")
                defaults = tuple(namespace[field] for field in optional)
                namespace |= {field: property(itemgetter(number)) for number, field in enumerate(fields)}
                namespace |= {"__match_args__": fields, "_fields": fields, "_defaults": defaults}
            return super().__new__(mcs, name, bases, {"__slots__": ()} | namespace)

    class NamedTuple(tuple, metaclass=_Kind):
        """A tuple whose items are attributes as well: see collections.namedtuple."""

        _fields = ()
        _defaults = ()

        def __new__(cls, /, *values, **named):
            cls.__new__ = _constructor(cls)
            return cls.__new__(cls, *values, **named)

        def __repr__(self):
            fields = ", ".join(f"{field}={value!r}" for field, value in self._asdict().items())
            return f"{type(self).__name__}({fields})"

        def __getnewargs__(self):
            return tuple(self)

        def _replace(self, /, **changed):
            # Of a list, as its length is known: CPython keeps tuples that are made shorter, up to 2,000.
            values = list(self)
            for field, value in changed.items():
                if field not in self._fields:
                    raise TypeError(f"{type(self).__name__} has no field {field}")
                values[self._fields.index(field)] = value
            return tuple.__new__(type(self), values)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

    def _constructor(cls):
        """A function with the fields as parameters, whose arguments the interpreter checks and completes."""
        parameters = "".join(f"{field}, " for field in cls._fields)
        text = f"lambda _class, {parameters}: _new(_class, ({parameters}))"
        made = eval(text, {"__builtins__": {}, "_new": tuple.__new__})
        made.__defaults__ = cls._defaults
        return staticmethod(made)
