import pytest

from choreo import ConfigurationError, DeclarationError
from choreo.cli.load import event_classes, load_services, named


@pytest.fixture
def module(project):
    def write(name, source):
        path = project.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return name

    return write


def names(services):
    return [service.name for service in services]


def test_a_module_gives_all_its_services(project):
    assert names(load_services(["cli_shop"])) == ["payments", "mail"]


def test_the_list_called_services_decides_where_there_is_one(module):
    module("cli_pack.__init__", "from cli_shop import mail, payments\nother = mail\nservices = (payments,)")
    assert names(load_services(["cli_pack"])) == ["payments"]


def test_one_service_by_its_name(module):
    module("cli_named", "from choreo import Service\nmine = Service('billing')\nother = Service('other')")
    assert names(load_services(["cli_named:billing"])) == ["billing"]
    with pytest.raises(ConfigurationError, match=r"has no service 'mine' \(its services are: billing, other\)"):
        load_services(["cli_named:mine"])


def test_a_service_is_found_by_name_where_a_module_has_that_name_too(module):
    module("cli_pkg.__init__", "from cli_pkg import payments\nservices = [payments.payments]")
    module("cli_pkg.payments", "from choreo import Service\npayments = Service('payments')")
    assert names(load_services(["cli_pkg:payments"])) == ["payments"]


def test_a_service_named_twice_is_loaded_once(project):
    assert names(load_services(["cli_shop:mail", "cli_shop"])) == ["mail", "payments"]


def test_targets_come_from_the_environment_where_none_are_given(project, monkeypatch):
    monkeypatch.setenv("CHOREO_MODULES", "cli_shop:mail, cli_shop")
    assert named([]) == ["cli_shop:mail", "cli_shop"]
    assert named(["other"]) == ["other"]
    assert names(load_services([])) == ["mail", "payments"]


def test_no_target_at_all(project):
    with pytest.raises(ConfigurationError, match=r"no module is named \(name one, .* or set CHOREO_MODULES\)"):
        load_services([])


@pytest.mark.parametrize(("target", "missing"), [("cli_nothing", "cli_nothing"), ("cli_nothing.deep", "cli_nothing")])
def test_a_module_that_is_not_there(project, target, missing):
    with pytest.raises(
        ConfigurationError, match=rf"there is no module '{missing}' \(run choreo in the folder it is in"
    ):
        load_services([target])


@pytest.mark.parametrize("source", ["import cli_absent", "from cli_absent import x"])
def test_a_module_that_misses_another_one_is_not_called_missing(module, source):
    module("cli_broken", source)
    with pytest.raises(
        ConfigurationError, match=r"module 'cli_broken' cannot be imported: .*No module named 'cli_absent'"
    ):
        load_services(["cli_broken"])


@pytest.mark.parametrize(
    ("source", "reason"),
    [("1 / 0", "ZeroDivisionError"), ("def", "SyntaxError"), ("from choreo import Nothing", "ImportError")],
)
def test_a_module_that_fails_while_it_is_imported(module, source, reason):
    module("cli_failing", source)
    with pytest.raises(ConfigurationError, match=rf"module 'cli_failing' cannot be imported: {reason}.*--debug"):
        load_services(["cli_failing"])


def test_a_wrong_declaration_speaks_for_itself(module):
    module("cli_wrong", "from choreo import Service\nService('not legal')")
    with pytest.raises(DeclarationError, match="service name 'not legal'"):
        load_services(["cli_wrong"])


@pytest.mark.parametrize(
    ("target", "guess"), [("shop.py", "shop"), ("services/shop.py", "services.shop"), ("./shop", "shop"), ("", "")]
)
def test_a_path_is_no_module_name(project, target, guess):
    with pytest.raises(ConfigurationError, match=rf"is no module name \(write it as in an import, such as {guess}\)"):
        load_services([target])


def test_a_module_without_services(module):
    module("cli_empty", "services = []")
    with pytest.raises(ConfigurationError, match=r"module 'cli_empty' has no services \(define one"):
        load_services(["cli_empty"])


def test_a_service_that_is_not_there_and_those_that_are(project):
    with pytest.raises(ConfigurationError, match=r"has no service 'post' \(its services are: payments, mail\)"):
        load_services(["cli_shop:post"])


def test_event_classes_are_those_of_the_module_and_of_its_services(module):
    module("cli_events", "from choreo import Event\nclass Alone(Event, topic='t', key='k'):\n    k: str")
    module("cli_uses", "from cli_shop import mail\nservices = [mail]")
    assert [cls.__name__ for cls in event_classes(["cli_events"])] == ["Alone"]
    assert [cls.__name__ for cls in event_classes(["cli_uses"])] == ["PaymentCharged", "PaymentDeclined"]
    assert {cls.__name__ for cls in event_classes(["cli_shop:mail"])} == {
        "OrderPlaced",
        "PaymentCharged",
        "PaymentDeclined",
    }


def test_every_module_must_have_events(module):
    module("cli_bare", "x = 1")
    with pytest.raises(ConfigurationError, match="module 'cli_bare' has neither events nor services"):
        event_classes(["cli_shop", "cli_bare"])
