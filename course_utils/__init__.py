"""The thin helper behind the lessons: everything here that is not the subject of a lesson."""

from course_utils.overview import progress as progress
from course_utils.runtime import setup

__all__ = ["setup"]
