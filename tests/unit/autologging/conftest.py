"""Tests of log lines here see them as a trainer does."""

from tests.support.spooled import default_log as default_log
