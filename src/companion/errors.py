"""The one exception type for input that a reader can put right."""


class InputError(ValueError):
    """Something a reader gave (a file, a column, a shape, an option) is wrong.

    The message is one line that names what is at fault. The command line prints it on stderr and exits with status 2.
    """
