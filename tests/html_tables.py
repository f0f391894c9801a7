"""What a reader sees of a table as html."""

from bs4 import BeautifulSoup

from companion.plotting import Html


def rows_of(table: Html) -> list[dict[str, str]]:
    """The rows of a table by its headings; spaces that do not break, in headings or cells, are plain ones."""
    soup = BeautifulSoup(table.markup.replace("\u00a0", " "), "html.parser")
    head = [cell.get_text() for cell in soup.select("thead tr > *")]
    return [dict(zip(head, (td.get_text() for td in row.select("td")), strict=True)) for row in soup.select("tbody tr")]


def text_of(table: Html) -> str:
    """The text of a table or figure without its tags."""
    return BeautifulSoup(table.markup, "html.parser").get_text(" ")
