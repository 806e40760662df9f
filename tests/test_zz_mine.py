import random, string
from tests.workers import fresh_fleet, start
from workers.models import WorkerStart
from django.db import connection
def test_it(db, caplog):
    f = fresh_fleet()
    for a in ["fe80::1%eth0", "fe80::1%" + "x"*300, "fe80::1%" + "x"*30, "fe80::1%" + "x"*3000, "::ffff:1.2.3.4", "2001:DB8::7%1"]:
        for _ in range(8):
            r = start(f, REMOTE_ADDR=a, **{"wsgi.url_scheme": "https"})
            row = WorkerStart.objects.order_by("-started_at").first()
            print("OUT", a[:20], len(a), r.status_code, row and row.client_address[:40] if row and row.client_address else row and row.client_address)
            if r.status_code != 200: print("OUT", [x.exc_info for x in caplog.records if x.exc_info][-1:])
