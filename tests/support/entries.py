"""What is entered as an endpoint, a namespace or a secret, and what is said to it; the tests of every door walk these."""

PORT = "A port is a number from 1 to 65535, without leading zeros."
FORM = "Write the host as host:port, an IPv6 address as [address]:port."
NAME = "This is not the name or address of a host."
FOUR = "Write an IPv4 address as four decimal numbers without leading zeros."
ASCII = "Write the host's name in its ASCII form (xn--...)."
BEFORE = "Leave out what stands before the host: write host:port."
URL = "Write an http(s) URL, such as https://service.example.com."
BLANK = "A URL has no blanks, line breaks and backslashes: leave them out."
ASCII_URL = "Write the host's name in its ASCII form (xn--...), and other letters of a path as %XX."
USER = "Leave user and password out of the URL: it is not sealed."
QUERY = "Leave out the query or fragment: a path is added to the URL."
PATH = "The path has characters that a URL has as %XX only."
DOT = "Leave out the dot after the host's name: its certificate does not have it."
SCHEME = "It begins with the word that clients put before it in a header: enter it without."
NOBODY = "A server listens at this address, but none is reached by it: write the server's own."
UNSEEN = "Leave out line breaks, other characters that cannot be seen, and blanks at the ends."
ENDS = "It begins or ends with a blank or line break, as it happens when pasting: enter it without."
CHARACTERS = "It has characters that cannot be sent: enter it again without line breaks and accents."
LONG = "It has more than 4,096 characters, which no server takes."

#: What may stand before a path in a URL, and is a Temporal's host.
HOSTS = (
    "temporal:7233",
    "lite_llm:4000",
    "_otel_collector_:4318",
    "Temporal.Example.COM:443",
    "temporal.example.com:1",
    "temporal.example.com:65535",
    "temporal-frontend.temporal.svc.cluster.local.:7233",
    "temporal.example.com",
    "localhost",
    "127.0.0.1:7233",
    "[::1]:7233",
    "[2001:DB8::1]",
    "[::ffff:127.0.0.1]:80",
    "xn--bcher-kva.example:7233",
    "a--b.example:1",
    f"{'x' * 63}:1",
)
NO_HOSTS = {
    "temporal:99999": PORT,
    "temporal:65536": PORT,
    "temporal:0": PORT,
    "temporal:07233": PORT,
    "temporal:00": PORT,
    "temporal:": PORT,
    "temporal:port": PORT,
    "temporal:-1": PORT,
    "temporal:+1": PORT,
    "[::1]:0": PORT,
    "::1": FORM,
    "2001:db8::1": FORM,
    "[temporal]:7233": FORM,
    "[::1": FORM,
    ":7233": FORM,
    "temporal:7233:7234": FORM,
    "[fe80::1%eth0]:7233": "Leave the zone id out of the address.",
    "tempo ral:7233": NAME,
    "-temporal:7233": NAME,
    "temporal-:7233": NAME,
    "a..b:7233": NAME,
    ".a:7233": NAME,
    "a..:7233": NAME,
    "*.example.com:7233": NAME,
    f"{'x' * 64}:7233": NAME,
    "127.1:7233": FOUR,
    "127.0.0.01:7233": FOUR,
    "2130706433": FOUR,
    "127.0.0.1.:7233": "Leave out the dot after the address.",
    "0x7f000001:7233": FOUR,
    "1.2.3.4.5:7233": FOUR,
}
UNREACHED = ("0.0.0.0:7233", "[::]:7233", "224.0.0.1:7233", "[ff02::1]", "255.255.255.255", "[::ffff:0.0.0.0]:80")
TARGETS = HOSTS
NO_TARGETS = NO_HOSTS | {
    **dict.fromkeys(UNREACHED, NOBODY),
    "http://temporal:7233": BEFORE,
    "https://temporal.example.com": BEFORE,
    "dns:///temporal:7233": BEFORE,
    "temporal:7233/": PORT,
    "temporal/path": NAME,
    "user@temporal:7233": NAME,
    "user:password@temporal:7233": FORM,
    "temporal:7233?x=1": PORT,
    "bücher.example:7233": ASCII,
    "temporal\n:7233": NAME,
    "temporal:7233\nx": PORT,
    "tempo\u200bral:7233": ASCII,
    "temporal:７２３３": PORT,
}
URLS = (
    *(f"http://{host}" for host in HOSTS),
    *(f"https://{host}/" for host in HOSTS if ".:" not in host),
    "HTTP://Otel-Collector:4318",
    "Https://llm.example.com/v1",
    "https://llm.example.com/a/b%20c/~d;e=1,2:3@4/",
)
#: urlsplit() itself knows these; how many more, depends on Python's release.
NO_BRACKETS = ("[::1", "[temporal]:7233")
NO_URLS = (
    {f"http://{host}": NOBODY for host in UNREACHED}
    | {f"http://{host}": BLANK if " " in host else text for host, text in NO_HOSTS.items() if host not in NO_BRACKETS}
    | {
        "": URL,
        "llm.example.com": URL,
        "llm.example.com:4000": URL,
        "//llm.example.com": URL,
        "ftp://llm.example.com": URL,
        "grpc://otel:4317": URL,
        "javascript:alert(1)": URL,
        "http:/llm": FORM,
        "http://": FORM,
        "http://[::1": URL,
        "http://user@llm": USER,
        "http://user:password@llm:4000": USER,
        "http://llm:4000?x=1": QUERY,
        "http://llm:4000/?": QUERY,
        "http://llm:4000/v1?x=1#y": QUERY,
        "http://llm:4000#a": QUERY,
        "http://llm:4000/#": QUERY,
        "http://llm:4000/a b": BLANK,
        "http://ll m": BLANK,
        "http://llm\\@other": BLANK,
        "http://llm:4000/\tx": BLANK,
        "http://ll\nm": BLANK,
        "http://llm\u200b:4000": BLANK,
        "http://bücher.example": ASCII_URL,
        "http://llm/ü": ASCII_URL,
        "http://llm/%": PATH,
        "http://llm/%zz": PATH,
        'http://llm/"': PATH,
        "http://llm/<x>": PATH,
        "https://llm.example.com.": DOT,
        "https://llm.example.com.:4000/v1": DOT,
    }
)
GATEWAYS = (*URLS, "http://llm:4000/v1", "http://llm:4000/models/v1", "http://llm:4000/llm-completions")
NO_GATEWAYS = NO_URLS | {
    "http://llm:4000/v1/chat/completions": "Leave out /chat/completions: clients add it.",
    "http://llm:4000/chat/completions/": "Leave out /chat/completions: clients add it.",
    "https://llm.example.com/v1/models": "Leave out /models: clients add it.",
    "https://llm.example.com/v1/embeddings": "Leave out /embeddings: clients add it.",
}
OTLP = (*URLS, "http://otel:4318/otlp", "http://otel:4318/v1", "http://otel:4318/v1/traces/tenant")
NO_OTLP = NO_URLS | {
    "http://otel:4318/v1/traces": "Leave out /v1/traces: exporters add it.",
    "http://otel:4318/v1/traces/": "Leave out /v1/traces: exporters add it.",
    "https://otel.example.com/otlp/v1/traces": "Leave out /v1/traces: exporters add it.",
    "http://otel:4318/v1/metrics": "Leave out /v1/metrics: exporters add it.",
    "http://otel:4318/v1/logs": "Leave out /v1/logs: exporters add it.",
}
LABELS = ("default", "acme.prod", "acme_prod-1.a2dd6", "Büro Nord", "x" * 255)
NO_LABELS = {
    "ns\nx": UNSEEN,
    "ns\tx": UNSEEN,
    "ns\x7fx": UNSEEN,
    "ns\x1bx": UNSEEN,
    "n\u200bs": UNSEEN,
    "n\u202es": UNSEEN,
    "n\u2028s": UNSEEN,
    "n\u00a0s": UNSEEN,
    "\ufeffns": UNSEEN,
}
SECRETS = ("s", "sk-0123456789", "a b", "a\"b'c=d,e;f", "x" * 4096)
NO_SECRETS = {
    "sk-1\nX: y": CHARACTERS,
    "sk\r1": CHARACTERS,
    "sk\t1": CHARACTERS,
    "sk\x7f1": CHARACTERS,
    "sk\x1b1": CHARACTERS,
    "sk-é": CHARACTERS,
    "sk-\u20ac": CHARACTERS,
    "s\u200bk": CHARACTERS,
    "s\u00a0k": CHARACTERS,
    "Bearer sk-1": SCHEME,
    "bearer sk-1": SCHEME,
    "Authorization: Bearer sk-1": SCHEME,
    "sk-1 ": ENDS,
    " sk-1": ENDS,
    "\tsk-1": ENDS,
    "sk-1\r": ENDS,
    "sk-1\u00a0": ENDS,
    "x" * 4097: LONG,
}
#: Model, field, what is taken, and what is refused with which sentence.
FIELDS = (
    ("TemporalConnection", "host", TARGETS, NO_TARGETS),
    ("TemporalConnection", "namespace", LABELS, NO_LABELS),
    ("LiteLLMConnection", "api_url", GATEWAYS, NO_GATEWAYS),
    ("TelemetrySettings", "otel_exporter_otlp_endpoint", OTLP, NO_OTLP),
    ("TelemetrySettings", "otel_service_name", LABELS, NO_LABELS),
)
