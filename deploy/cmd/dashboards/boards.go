package main

// board is a page of panels about one thing.
type board struct {
	file, title, about string
	rows               []row
}

type row struct {
	title  string
	panels []panel
}

// panel is a picture over time; what says what one sees, and what is well.
type panel struct {
	title, what, unit string
	lines             []line
}

// line is a question to Prometheus and what its series are called, with labels as {{label}}.
type line struct{ expr, legend string }

// Units as Grafana calls them.
const (
	seconds  = "s"
	perSec   = "ops"
	number   = "short"
	bytesIEC = "bytes"
	ratio    = "percentunit"
	days     = "d"
)

var boards = []board{
	{"push-to-live", "Devpilot: Push to live", "From a push at Bitbucket to its release being live, step by step: which part takes the time.", []row{
		{"All of it", []panel{
			{"From push to live", "From the receipt of a push to its release being live.", seconds, quantiles("devpilot_deployer_push_to_live_seconds")},
			{"Pushes by verdict", "For each app that they are about: what was decided, and by whom.", perSec, rates("devpilot_deployer_pushes_total", "by", "verdict")},
			{"Deployments that ended", "By how they ended.", perSec, rates("devpilot_deployer_deployments_ended_total", "state")},
		}},
		{"Delivery", []panel{
			{"Answer to Bitbucket", "Bitbucket gives a delivery up after 10 seconds.", seconds, quantiles("devpilot_webhook_ingest_seconds")},
			{"Until push events are stored", "From a delivery's arrival.", seconds, quantiles("devpilot_webhook_router_lag_seconds")},
			{"Pushes found by polling", "Their deliveries did not come: see the board of webhook.", perSec, []line{{"sum by (verdict) (rate(devpilot_deployer_pushes_total{" + where + `,by="poll"}[$__rate_interval]))`, "{{verdict}}"}}},
		}},
		{"Decision and queue", []panel{
			{"Waits to be decided", "Pushes whose rules need the repository, and since when the oldest waits.", number, append(most("devpilot_deployer_undecided_pushes"), most("devpilot_deployer_oldest_undecided_seconds")...)},
			{"Waits to run", "Deployments that have not ended.", number, most("devpilot_deployer_deployments", "server", "state")},
			{"The longest wait and the longest run", "What waits for long wants more workers; what runs for long is looked at in its log.", seconds, append(most("devpilot_deployer_oldest_pending_seconds"), most("devpilot_deployer_oldest_processing_seconds")...)},
		}},
		{"Run", []panel{
			{"Attempts", "Duration, all ends together.", seconds, quantiles("devpilot_deployer_run_seconds")},
			{"Git, 99 of 100", "By operation.", seconds, []line{{"histogram_quantile(0.99, sum by (le, operation) (rate(devpilot_deployer_git_seconds_bucket{" + where + "}[$__rate_interval])))", "{{operation}}"}}},
			{"Slots of workers", "Busy ones of those that there are.", number, append(most("devpilot_deployer_worker_slots_busy", "server"), most("devpilot_deployer_worker_slots", "server")...)},
		}},
	}},
	{"auth", "Devpilot: auth", "Connections to Bitbucket and their tokens.", []row{
		{"Connections", []panel{
			{"Integrations by state", "All but CONNECTED wait for somebody or for Bitbucket.", number, most("devpilot_auth_integrations", "state")},
			{"Connects", "Begun and what became of them.", perSec, rates("devpilot_auth_handshakes_total", "outcome")},
			{"Tokens asked for", "By result: ok, or why not.", perSec, rates("devpilot_auth_tokens_issued_total", "result")},
		}},
		{"Refresh", []panel{
			{"Refreshes", "By result: stored is well.", perSec, rates("devpilot_auth_refreshes_total", "result")},
			{"Questions after a 401", "Whether Bitbucket accepts the token elsewhere.", perSec, rates("devpilot_auth_probes_total", "verdict")},
			{"Leases taken over", "From a process that was silent for too long.", perSec, rates("devpilot_auth_lease_takeovers_total")},
		}},
	}},
	{"repo", "Devpilot: repo", "Repositories and branches, and what Bitbucket is asked.", []row{
		{"Lists", []panel{
			{"Lists of repositories", "By where the answer came from.", perSec, rates("devpilot_repo_lists_total", "source")},
			{"Walks over an account", "By outcome.", perSec, rates("devpilot_repo_fetches_total", "outcome")},
			{"Time of a walk", "Over all Bitbucket workspaces of an account.", seconds, quantiles("devpilot_repo_fetch_duration_seconds")},
		}},
		{"Bitbucket's API, of all services", []panel{
			{"Requests", "By kind and outcome.", perSec, rates("devpilot_bitbucket_requests_total", "route", "outcome")},
			{"Time of a request, 99 of 100", "By kind.", seconds, []line{{"histogram_quantile(0.99, sum by (le, route) (rate(devpilot_bitbucket_request_duration_seconds_bucket{" + where + "}[$__rate_interval])))", "{{route}}"}}},
			{"Calls that are left", "Of the 1,000 an hour that Bitbucket allows, by budget.", number, []line{{"min by (budget, priority) (devpilot_bitbucket_budget_left{" + where + "})", "{{budget}} {{priority}}"}}},
			{"Calls that were used", "By service and kind.", perSec, rates("devpilot_bitbucket_budget_used_total", "service", "call", "priority")},
			{"Calls that our budget held back", "Background calls give way first.", perSec, rates("devpilot_bitbucket_budget_refused_total", "route", "priority")},
		}},
	}},
	{"webhook", "Devpilot: webhook", "Bitbucket's deliveries, and the webhooks at its repositories.", []row{
		{"Deliveries", []panel{
			{"Answers", "By HTTP status and reason.", perSec, rates("devpilot_webhook_deliveries_total", "status", "reason")},
			{"Refused signatures", "Kept for people to look at, or only counted.", perSec, rates("devpilot_webhook_refused_requests_total", "kept")},
			{"Routed", "New ones, repeats, and of webhooks that are gone.", perSec, rates("devpilot_webhook_routed_total", "kind")},
		}},
		{"Inbox", []panel{
			{"Waits", "Messages that no router has taken.", number, most("devpilot_webhook_inbox_pending_messages")},
			{"Filled", "Of its limit; at 100 % deliveries are refused.", ratio, most("devpilot_webhook_inbox_filled_ratio")},
			{"Writes", "By result.", perSec, rates("devpilot_webhook_inbox_writes_total", "result")},
			{"Deliveries a message", "How many share a write.", number, quantiles("devpilot_webhook_inbox_batch_deliveries")},
			{"Reads of the leader", "Before a 404 or 401: strangers make them.", perSec, rates("devpilot_webhook_leader_reads_total")},
		}},
		{"Webhooks at Bitbucket", []panel{
			{"What is wrong with them", "REGISTERED is well.", number, most("devpilot_webhook_health", "health")},
			{"How they stand", "And the reason why not better.", number, most("devpilot_webhook_webhooks", "state", "reason")},
			{"Work on them", "By what was to be done and what came of it.", perSec, rates("devpilot_webhook_registrations_total", "action", "result")},
		}},
	}},
	{"deployer", "Devpilot: deployer", "Apps, their deployments, workers and sites.", []row{
		{"Apps", []panel{
			{"How they stand", "BEHIND is not live as it is on Bitbucket.", number, most("devpilot_deployer_apps", "sync")},
			{"Branches are compared", "Since any repository was looked at, and how long one waits beyond its time.", seconds, append(least("devpilot_deployer_reconcile_age_seconds"), most("devpilot_deployer_reconcile_overdue_seconds")...)},
			{"Comparisons", "Answered by Bitbucket's git or not.", perSec, rates("devpilot_deployer_reconcile_polls_total", "result")},
			{"Repositories", "By what their last comparison came to.", number, []line{{"sum by (state) (devpilot_deployer_reconcile_repositories{" + where + "})", "{{state}}"}}},
			{"Commit statuses", "What became of them at Bitbucket.", perSec, rates("devpilot_deployer_statuses_total", "result")},
		}},
		{"Workers", []panel{
			{"Workers that live", "By server.", number, most("devpilot_deployer_workers", "server")},
			{"Apps of a server", "That are deployed on it, or whose live release it has.", number, most("devpilot_deployer_server_apps", "server")},
			{"Run now", "By process.", number, []line{{"devpilot_deployer_running{" + where + "}", "{{instance}}"}}},
			{"Attempts", "By how they ended.", perSec, rates("devpilot_deployer_runs_total", "result")},
			{"Room on the disk", "Of a server, and what of it stays free.", bytesIEC, append(most("devpilot_deployer_disk_free_bytes", "server"), most("devpilot_deployer_disk_reserve_bytes", "server")...)},
		}},
		{"Sites", []panel{
			{"Requests", "By kind of site and status.", perSec, rates("devpilot_deployer_live_requests_total", "site", "status")},
			{"Sent", "By content coding.", "Bps", rates("devpilot_deployer_live_sent_bytes_total", "coding")},
			{"Forwarded to other servers", "By result.", perSec, rates("devpilot_deployer_live_forwarded_total", "result")},
		}},
	}},
	{"gateway", "Devpilot: gateway", "The API, the console and notifications.", []row{
		{"API", []panel{
			{"Requests", "By status.", perSec, rates("devpilot_http_requests_total", "status")},
			{"Time, 99 of 100", "By route; streams are not among them.", seconds, []line{{"histogram_quantile(0.99, sum by (le, route) (rate(devpilot_http_request_duration_seconds_bucket{" + where + "}[$__rate_interval])))", "{{route}}"}}},
			{"Being served", "Open streams are among them.", number, []line{{"devpilot_http_requests_in_flight{" + where + "}", "{{instance}}"}}},
		}},
		{"Beside it", []panel{
			{"Notifications", "By kind and what became of them.", perSec, rates("devpilot_notifications_total", "kind", "result")},
			{"Activity that was lost", "0 is well.", perSec, rates("devpilot_activity_lost_total")},
		}},
	}},
	{"platform", "Devpilot: platform", "What all services stand on: NATS, Redis, calls between them, certificates.", []row{
		{"Up", []panel{
			{"Ready", "1 where a process can serve.", number, []line{{"devpilot_ready{" + where + "}", "{{job}} {{instance}}"}}},
			{"NATS", "1 where it is connected and takes writes.", number, []line{{"devpilot_nats_up{" + where + "}", "{{job}} {{instance}}"}}},
			{"Redis", "1 where it answers.", number, []line{{"devpilot_redis_up{" + where + "}", "{{job}} {{instance}}"}}},
			{"Versions", "How many processes run each.", number, []line{{"count by (version) (devpilot_build_info{" + where + "})", "{{version}}"}}},
			{"CPU", "Of one core.", ratio, []line{{"rate(process_cpu_seconds_total{" + where + "}[$__rate_interval])", "{{job}} {{instance}}"}}},
			{"Memory", "What a process holds.", bytesIEC, []line{{"process_resident_memory_bytes{" + where + "}", "{{job}} {{instance}}"}}},
		}},
		{"Streams", []panel{
			{"Lag of consumers", "Age of the oldest message that is not done.", seconds, most("devpilot_stream_consumer_lag_seconds", "stream", "consumer")},
			{"Wait for a consumer", "Messages that no replica has taken.", number, most("devpilot_stream_consumer_pending_messages", "stream", "consumer")},
			{"Taken and not answered", "By replicas, or once were.", number, most("devpilot_stream_consumer_unacknowledged_messages", "stream", "consumer")},
			{"Dead letters", "0 is well.", number, most("devpilot_stream_dead_letters", "stream", "consumer")},
			{"Messages", "By what became of them.", perSec, rates("devpilot_stream_messages_total", "stream", "consumer", "outcome")},
			{"Time of a handler, 99 of 100", "By consumer.", seconds, []line{{"histogram_quantile(0.99, sum by (le, stream, consumer) (rate(devpilot_stream_handle_seconds_bucket{" + where + "}[$__rate_interval])))", "{{stream}} {{consumer}}"}}},
			{"Replicas that are missing", "Of streams and buckets; 0 is well.", number, []line{{"max by (stream) (devpilot_stream_replicas_wished{" + where + "} - devpilot_stream_replicas{" + where + "}) > 0", "{{stream}}"}}},
		}},
		{"Copies of buckets", []panel{
			{"Answered by a copy", "Of all reads.", ratio, []line{{"sum by (bucket) (rate(devpilot_kv_copy_hits_total{" + where + "}[$__rate_interval])) / (sum by (bucket) (rate(devpilot_kv_copy_hits_total{" + where + "}[$__rate_interval])) + sum by (bucket) (rate(devpilot_kv_copy_fallbacks_total{" + where + "}[$__rate_interval])))", "{{bucket}}"}}},
			{"Answered by the leader instead", "By reason.", perSec, rates("devpilot_kv_copy_fallbacks_total", "bucket", "reason")},
			{"Behind", "Revisions.", number, most("devpilot_kv_copy_lag_revisions", "bucket")},
			{"Memory of copies", "All processes together.", bytesIEC, []line{{"sum by (bucket) (devpilot_kv_copy_bytes{" + where + "})", "{{bucket}}"}}},
		}},
		{"Calls between services", []panel{
			{"Served, by code", "OK is well.", perSec, []line{{"sum by (service, code) (rate(devpilot_rpc_server_duration_seconds_count{" + where + "}[$__rate_interval]))", "{{service}} {{code}}"}}},
			{"Time to serve, 99 of 100", "By service.", seconds, []line{{"histogram_quantile(0.99, sum by (le, service) (rate(devpilot_rpc_server_duration_seconds_bucket{" + where + "}[$__rate_interval])))", "{{service}}"}}},
			{"Time until an answer, 99 of 100", "As the caller sees it.", seconds, []line{{"histogram_quantile(0.99, sum by (le, service) (rate(devpilot_rpc_client_duration_seconds_bucket{" + where + "}[$__rate_interval])))", "{{service}}"}}},
			{"Being served", "By service.", number, []line{{"sum by (service) (devpilot_rpc_server_in_flight{" + where + "})", "{{service}}"}}},
		}},
		{"Certificates", []panel{
			{"Days left", "Of certificates and of their authorities.", days, append(least("devpilot_tls_certificate_days_left", "use"), least("devpilot_tls_authority_days_left", "use")...)},
			{"Cannot be used", "1 while the files hold what cannot be.", number, most("devpilot_tls_reload_failing", "use")},
			{"Connections refused for a certificate", "0 is well.", perSec, rates("devpilot_tls_refused_connections_total", "use")},
			{"New contents", "Used or refused.", perSec, rates("devpilot_tls_reloads_total", "use", "result")},
		}},
	}},
}
