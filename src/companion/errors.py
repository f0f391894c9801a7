"""Exceptions for input that a reader can put right."""


class InputError(ValueError):
    """Something a reader gave (a file, a column, a shape, an option) is wrong.

    The message is one line that names what is at fault. The command line prints it on stderr and exits with status 2.
    """


class NotApplicable(InputError):
    """The data at hand cannot answer a question: an architecture is missing, there are too few runs, one context only.

    A chapter of the book that raises it is left out of the build, with the message as the reason; the others are built.
    """
