"""What only one chapter of the book needs: its tables, figures and facts, one module a notebook (`ch01`, `ch02`, ...).

A notebook reads as a lesson: it calls the library for every step that it teaches, and its chapter's module for what
takes more than a line to show. No module of the library imports from here.
"""
