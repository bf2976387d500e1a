from __future__ import annotations

import itertools

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from ekiden.api.app import create_app
from ekiden.api.settings import ApiSettings, check_bind, is_loopback
from ekiden.errors import SettingsError
from tests.api.conftest import client_of
from tests.api.relay import Relay, SilentDoorbell

KEY = {"Authorization": "Bearer open sesame"}
