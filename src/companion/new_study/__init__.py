"""A folder for a scaling study of one's own: a table to fill, a notebook that analyzes it, and its page."""

from companion.new_study.making import make_study
from companion.new_study.page import make_page

__all__ = ["make_page", "make_study"]
