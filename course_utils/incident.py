"""Lesson 21 under one name: its cases, the reports on them, and what these are worth."""

from course_utils.checks.judge import score as score
from course_utils.checks.judge import summary as summary
from course_utils.checks.judge import total as total
from course_utils.checks.reports import DEFENSES as DEFENSES
from course_utils.checks.reports import FAMILIES as FAMILIES
from course_utils.checks.reports import Report as Report
from course_utils.checks.reports import check_report as check_report
from course_utils.checks.reports import from_json as from_json
from course_utils.checks.reports import to_json as to_json
from course_utils.open_cases import FOLDER as FOLDER
from course_utils.open_cases import IncidentError as IncidentError
from course_utils.open_cases import OpenCase as OpenCase
from course_utils.open_cases import case_names as case_names
from course_utils.open_cases import load_case as load_case
from course_utils.open_cases import random_rows as random_rows
from course_utils.open_cases import without as without
