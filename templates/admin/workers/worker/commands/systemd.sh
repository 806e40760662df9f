# Run this as root. Your own program takes the place of /usr/local/lib/{{ name }}.py.
install -m 0600 /dev/null /etc/{{ name }}.env
cat > /etc/{{ name }}.env <<'END'
{% for name, value in variables %}{{ name }}={{ value }}
{% endfor %}API_KEY={{ api_key }}
END

install -m 0644 /dev/null /usr/local/lib/{{ name }}.py
cat > /usr/local/lib/{{ name }}.py <<'END'
{{ program }}END

install -m 0644 /dev/null /etc/systemd/system/{{ name }}.service
cat > /etc/systemd/system/{{ name }}.service <<'END'
[Unit]
Description=Worker {{ name }}
Wants=network-online.target
After=network-online.target

[Service]
EnvironmentFile=/etc/{{ name }}.env
ExecStart=/usr/bin/python3 -u /usr/local/lib/{{ name }}.py
Restart=on-failure
RestartSec=30
# Another process has taken this one's place.
RestartPreventExitStatus=3
DynamicUser=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
END

systemctl daemon-reload
systemctl enable --now {{ name }}.service
