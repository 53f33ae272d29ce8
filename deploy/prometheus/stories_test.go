package prometheus

// story is what Prometheus has seen, by the minute, in its own notation of series.
type story struct{ fires, quiet []string }

// stories fire each alert, and show it silent beside that.
var stories = map[string]story{
	"DevpilotDown": {
		fires: []string{`up 0x20`},
		quiet: []string{`devpilot_build_info{version="v1"} 1x20`},
	},
	"DevpilotNotReady": {
		fires: []string{`devpilot_ready{instance="a"} 1x3 0x20`},
		quiet: []string{`devpilot_ready{instance="a"} 1x3 0x3 1x20`},
	},
	"DevpilotNATSDown": {
		fires: []string{`devpilot_nats_up{instance="a"} 1 0x10`},
		quiet: []string{`devpilot_nats_up{instance="a"} 1x10`},
	},
	"DevpilotRedisDown": {
		fires: []string{`devpilot_redis_up{instance="a"} 1 0x12`},
		quiet: []string{`devpilot_redis_up{instance="a"} 1 0x3 1x12`},
	},
	"DevpilotConsumerBehind": {
		fires: []string{`devpilot_stream_consumer_lag_seconds{stream="DEVPILOT_PUSHES",consumer="deployer"} 0+60x30`},
		quiet: []string{`devpilot_stream_consumer_lag_seconds{stream="DEVPILOT_PUSHES",consumer="deployer"} 200x30`, `devpilot_stream_consumer_lag_seconds{stream="DEVPILOT_WORK",consumer="server-default"} 0+60x30`},
	},
	"DevpilotDeadLetters": {
		fires: []string{`devpilot_stream_messages_total{stream="DEVPILOT_PUSHES",consumer="deployer",outcome="parked"} 0x5 1x5`},
		quiet: []string{`devpilot_stream_messages_total{stream="DEVPILOT_PUSHES",consumer="deployer",outcome="parked"} 3x10`, `devpilot_stream_messages_total{stream="DEVPILOT_PUSHES",consumer="deployer",outcome="done"} 0+1x10`},
	},
	"DevpilotDeploymentsWait": {
		fires: []string{`devpilot_deployer_oldest_pending_seconds 1700+60x20`},
		quiet: []string{`devpilot_deployer_oldest_pending_seconds 0+60x20`},
	},
	"DevpilotDeploymentHangs": {
		fires: []string{`devpilot_deployer_oldest_processing_seconds 7000+60x20`},
		quiet: []string{`devpilot_deployer_oldest_processing_seconds 0+60x20`},
	},
	"DevpilotPushesUndecided": {
		fires: []string{`devpilot_deployer_oldest_undecided_seconds 500+60x20`},
		quiet: []string{`devpilot_deployer_oldest_undecided_seconds 30x20`},
	},
	"DevpilotServerWithoutWorkers": {
		fires: []string{`devpilot_deployer_workers{server="eu"} 0x10`, `devpilot_deployer_deployments{server="eu",state="pending"} 1x10`},
		quiet: []string{`devpilot_deployer_workers{server="eu"} 0x10`, `devpilot_deployer_deployments{server="eu",state="pending"} 0x10`, `devpilot_deployer_workers{server="us"} 1x10`, `devpilot_deployer_deployments{server="us",state="pending"} 5x10`},
	},
	"DevpilotServerDied": {
		fires: []string{`devpilot_deployer_workers{server="eu"} 0x20`, `devpilot_deployer_server_apps{server="eu"} 3x20`},
		quiet: []string{ // its apps were moved; another one lives
			`devpilot_deployer_workers{server="eu"} 0x20`, `devpilot_deployer_server_apps{server="eu"} 3x3 0x17`,
			`devpilot_deployer_workers{server="us"} 1x20`, `devpilot_deployer_server_apps{server="us"} 3x20`,
		},
	},
	"DevpilotDiskFull": {
		fires: []string{`devpilot_deployer_disk_free_bytes{server="eu"} 100x10`, `devpilot_deployer_disk_reserve_bytes{server="eu"} 200x10`},
		quiet: []string{`devpilot_deployer_disk_free_bytes{server="eu"} 250x10`, `devpilot_deployer_disk_reserve_bytes{server="eu"} 200x10`},
	},
	"DevpilotDiskLow": {
		fires: []string{`devpilot_deployer_disk_free_bytes{server="eu"} 300x20`, `devpilot_deployer_disk_reserve_bytes{server="eu"} 200x20`},
		quiet: []string{`devpilot_deployer_disk_free_bytes{server="eu"} 900x20`, `devpilot_deployer_disk_reserve_bytes{server="eu"} 200x20`},
	},
	"DevpilotReconcilerStands": {
		fires: []string{`devpilot_deployer_reconcile_age_seconds{instance="a"} 1100+60x20`, `devpilot_deployer_reconcile_age_seconds{instance="b"} 1100+60x20`},
		quiet: []string{`devpilot_deployer_reconcile_age_seconds{instance="a"} 1100+60x20`, `devpilot_deployer_reconcile_age_seconds{instance="b"} 5x20`},
	},
	"DevpilotDeliveriesMissing": {
		fires: []string{`devpilot_deployer_pushes_total{by="poll",verdict="deploys"} 0+1x60`, `devpilot_deployer_pushes_total{by="delivery",verdict="deploys"} 0+1x60`},
		quiet: []string{`devpilot_deployer_pushes_total{by="poll",verdict="deploys"} 0+1x60`, `devpilot_deployer_pushes_total{by="delivery",verdict="deploys"} 0x60`},
	},
	"DevpilotBitbucketFailing": {
		fires: []string{`devpilot_deployer_reconcile_polls_total{result="failed"} 0+9x40`, `devpilot_deployer_reconcile_polls_total{result="answered"} 0+1x40`},
		quiet: []string{`devpilot_deployer_reconcile_polls_total{result="failed"} 0+1x40`, `devpilot_deployer_reconcile_polls_total{result="answered"} 0+9x40`},
	},
	"DevpilotBudgetSpent": {
		fires: []string{`devpilot_bitbucket_budget_refused_total{route="branches",priority="interactive"} 0x5 2x5`},
		quiet: []string{`devpilot_bitbucket_budget_refused_total{route="branches",priority="interactive"} 2x10`, `devpilot_bitbucket_budget_refused_total{route="hooks",priority="background"} 0+1x10`},
	},
	"DevpilotCertificateEnds": {
		fires: []string{`devpilot_tls_certificate_days_left{use="http"} 20x90`},
		quiet: []string{`devpilot_tls_certificate_days_left{use="http"} 90x90`, `devpilot_tls_authority_days_left{use="services"} 3000x90`},
	},
	"DevpilotCertificateUnusable": {
		fires: []string{`devpilot_tls_reload_failing{use="services"} 1x10`},
		quiet: []string{`devpilot_tls_reload_failing{use="services"} 0x10`},
	},
	"DevpilotDeliveriesRefused": {
		fires: []string{`devpilot_webhook_deliveries_total{status="503",reason="STORAGE_UNAVAILABLE"} 0+1x10`},
		quiet: []string{`devpilot_webhook_deliveries_total{status="202",reason=""} 0+9x10`, `devpilot_webhook_deliveries_total{status="401",reason="X"} 0+9x10`},
	},
	"DevpilotInboxFull": {
		fires: []string{`devpilot_webhook_inbox_filled_ratio 0.9x10`},
		quiet: []string{`devpilot_webhook_inbox_filled_ratio 0.8x10`},
	},
	"DevpilotReconnectRequired": {
		fires: []string{`devpilot_auth_integrations{state="RECONNECT_REQUIRED"} 2x30`},
		quiet: []string{`devpilot_auth_integrations{state="RECONNECT_REQUIRED"} 0x30`, `devpilot_auth_integrations{state="CONNECTED"} 9x30`},
	},
	"DevpilotRefreshFailing": {
		fires: []string{`devpilot_auth_integrations{state="REFRESH_FAILING"} 1x45`},
		quiet: []string{`devpilot_auth_integrations{state="REFRESH_FAILING"} 0x45`},
	},
	"DevpilotWebhooksUnwell": {
		fires: []string{`devpilot_webhook_health{health="SWITCHED_OFF"} 1x90`},
		quiet: []string{`devpilot_webhook_health{health="REGISTERED"} 9x90`},
	},
	"DevpilotDeploymentsFail": {
		fires: []string{`devpilot_deployer_deployments_ended_total{state="failed"} 0+1x40`, `devpilot_deployer_deployments_ended_total{state="completed"} 0x40`},
		quiet: []string{`devpilot_deployer_deployments_ended_total{state="failed"} 0+1x40`, `devpilot_deployer_deployments_ended_total{state="completed"} 0+9x40`},
	},
	"DevpilotSlowToLive": {
		fires: []string{`devpilot_deployer_push_to_live_seconds_bucket{le="204.8"} 0x60`, `devpilot_deployer_push_to_live_seconds_bucket{le="819.2"} 0+1x60`, `devpilot_deployer_push_to_live_seconds_bucket{le="+Inf"} 0+1x60`},
		quiet: []string{`devpilot_deployer_push_to_live_seconds_bucket{le="204.8"} 0+1x60`, `devpilot_deployer_push_to_live_seconds_bucket{le="819.2"} 0+1x60`, `devpilot_deployer_push_to_live_seconds_bucket{le="+Inf"} 0+1x60`},
	},
	"DevpilotStreamReplicasLack": {
		fires: []string{`devpilot_stream_replicas{stream="KV_a"} 1x30`, `devpilot_stream_replicas_wished{stream="KV_a"} 3x30`},
		quiet: []string{`devpilot_stream_replicas{stream="KV_a"} 3x30`, `devpilot_stream_replicas_wished{stream="KV_a"} 3x30`},
	},
	"DevpilotActivityLost": {
		fires: []string{`devpilot_activity_lost_total 0x5 1x5`},
		quiet: []string{`devpilot_activity_lost_total 4x10`},
	},
	"DevpilotAPIErrors": {
		fires: []string{`devpilot_http_requests_total{status="500",method="GET",route="/v1/me"} 0+1x30`, `devpilot_http_requests_total{status="200",method="GET",route="/v1/me"} 0+9x30`},
		quiet: []string{`devpilot_http_requests_total{status="404",method="GET",route="/v1/me"} 0+9x30`, `devpilot_http_requests_total{status="200",method="GET",route="/v1/me"} 0+9x30`},
	},
	"DevpilotNotificationsDropped": {
		fires: []string{`devpilot_notifications_total{kind="SLACK",result="dropped"} 0x5 3x5`},
		quiet: []string{`devpilot_notifications_total{kind="SLACK",result="failed"} 0+1x10`, `devpilot_notifications_total{kind="SLACK",result="dropped"} 3x10`},
	},
}
