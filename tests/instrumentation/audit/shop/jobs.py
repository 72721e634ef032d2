from apscheduler.schedulers.background import BackgroundScheduler
from celery import Celery, shared_task
from openfeature import api as flags

celery = Celery("shop")
scheduler = BackgroundScheduler()
features = flags.get_client()


@celery.task
def mail(to): ...


@shared_task(bind=True)
def sweep(self):
    return features.get_boolean_value("new-sweep", False)


@scheduler.scheduled_job("interval", seconds=5)
def tick(): ...


scheduler.add_job(mail, "cron")
