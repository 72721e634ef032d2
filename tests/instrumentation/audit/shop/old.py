from django.urls import include, path
from flask import Blueprint, Flask
from starlette.routing import Mount, Route

from .orders import note

flask = Flask(__name__)
admin = Blueprint("admin", __name__, url_prefix="/admin")


@admin.route("/users", methods=["DELETE"])
def users():
    note("users")


@flask.route("/old")
def old(): ...


def view(request): ...


flask.register_blueprint(admin)
urlpatterns = [path("books/<int:id>/", view), path("sub/", include("sub.urls"))]
routes = [Route("/s/{x:int}", view), Mount("/m", app=None)]
