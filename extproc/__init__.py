"""AI traffic policy for Envoy: the rooms, and the words used in them.

One HTTP request is one ext_proc stream is one `Session`. A request walks through the rooms like this:

    server -> wire -> exchange -> session -> policy.engine -> policy.kinds, policy.metering
                         |           '-----> wire (the answer)
                         '-> errands -> understand -> formats, measure
                                |-----> store (reserve, settle), ledger (the records)
                                '-----> telemetry (the report)

Imports only go down these floors; `tests/test_import_floors.py` keeps it so.

0 words      errors       every exception raised on purpose
             model        the nouns of a request and its answer: AIRequest, Identity, Usage, Basis
             decision     Decision, Finding, Charge, Denial, Settlement: what everything else projects
             pb           generated from proto/; never edited
1 functions  formats      bodies in and out, a file a wire format; classify, providers, body, answers
             measure      tokens of a prompt, prices, vocabularies; what was learned from answers
             policy       documents -> objects -> PolicySet; index, engine, verdict, attempt, metering,
                          accounting; kinds/ of objects, counters/ by algorithm
             understand   bytes of a request -> what it asks for and costs, in one pure call
2 machine    session      events in, actions out; `transitions` is the protocol as a table
                          (`admission` until the request is forwarded, `answer` after)
3 edge       wire         protobuf <-> events and actions
             store        counters in memory or Redis; `base` is the contract
             ledger       a record of every decision, and the counters, in SQLite or Postgres
             questions    why was this blocked, where did my tokens go: the ledger, read and explained
             rehearsal    the same session without Envoy: policy tests, and recorded decisions again
             keeping      the store and the ledger of one process, opened and closed together
             telemetry    spans, metrics and log records of a decision
             envoy_config Envoy's configuration from settings
             accesslog    what Envoy's access log says of answers whose usage it could not read
             errands      what a session wants done outside of it; `edge` is what exchanges share
             console      the same answers as pages for a browser, on the admin port
             budgets      counters for their owners, on the admin port
             settings, state, reload, intake, exchange, server, admin, leases, gauges, pauses
4 door       serve        the rooms put together; cli: the command line, one file a command
             workers      several processes of it under one supervisor

No clock, no ids and no I/O on floors 0 to 2: they are arguments. What is read there are files, before
any request: vocabularies (`measure`), a policy folder and the rules of time zones (`policy`).

Words:

    action      what the session wants done, imperative: Continue, Reserve, Settle
    attempt     one try to pass the limits; with another model it is a second one
    basis       what a settled figure rests on: provider, tokenizer, bytes, reserved, ...
    burst       the most a bucket holds at once; `per` is how long its amount takes to refill
    change      what a person or a file changed: a counter reset, an override, policies activated
    charge      what one limit takes from one counter
    clamp       lower the output limit of a request to what a RequestCap accepts
    control     an AI call that spends nothing, such as listing models
    counter     what a limit counts with: one for each distinct key
    decision    the verdict on one request with all that led to it; its id is a UUIDv7
    dialect     the wire format in which a caller is told of an error
    effect      what policy says; `enforced_effect` is what was done
    event       what happened to a request, a noun: RequestHeaders, StreamClosed
    explanation a story as it is told: the verdict, what would have let it pass, every policy's arithmetic
    facts       what a policy expression sees; no prompt text, no credential
    finding     what one policy said about one request, and why; every policy has one
    inquiry     what a caller asks the gateway about itself
    kind        a type of policy object, such as AccessRule, RateLimit or UsageCap
    lease       a place among the requests in flight; it ends with its request, or when nobody renews it
    ledger      the durable record of decisions, of what they came to, and of counters
    native      Envoy reads the usage of answers and hands it over in trailers; else `stream`
    override    what an owner grants on top of a limit, until a time
    place       what processes take one after another: whoever comes next takes up the counters
    policy set  one policy folder, compiled, immutable; its revision is the hash of its content
    provider    who answers: a vendor, known by host and base path, or a Provider object
    reason      a stable code for why: access_denied, rate_limited, ...
    reserve     take what a request may cost before it goes upstream, all limits or none
    settle      replace the reservation by what was spent, exactly once
    shadow      evaluated and recorded, never enforced; would_deny is what it would have done
    story       everything the ledger knows of one decision
    substitute  the model that a UsageCap offers instead of a denial
    target      the model and provider a request goes to
    wording     the policies of a revision in their authors' words, kept with its decisions
    window      how a limit's amount comes back: token bucket, sliding, calendar, leases
"""
