// SPDX-License-Identifier: MIT
//
// Metrics in the text format of Prometheus, from the table metric.def.
//
// Go  none in the runtime; the names are client_golang's collectors go and process.
#include "base/fmt.h"
#include "stats/stats.h"

enum metric_type { METRIC_GAUGE, METRIC_COUNTER, METRIC_SUMMARY };
enum metric_form {
    METRIC_COUNT,
    METRIC_LIMIT,
    METRIC_NS,
    METRIC_GO_LABEL,
    METRIC_EBB_LABEL,
    METRIC_NONE,
};

static const char *const type_texts[] = {"gauge", "counter", "summary"};

static void quoted(struct fmt *out, const char *text)
{
    fmt_char(out, '"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            fmt_char(out, '\\');
        }
        fmt_char(out, *text == '\n' ? ' ' : *text);
    }
    fmt_char(out, '"');
}

static void labels(struct fmt *out, const struct metrics *m, bool ours)
{
    fmt_str(out, "{version=");
    quoted(out, m->version);
    if (ours) {
        fmt_str(out, ",policy=");
        quoted(out, m->policy);
    }
    fmt_char(out, '}');
}

static void summary(struct fmt *out, const char *name)
{
    static const char *const quantiles[] = {"0", "0.25", "0.5", "0.75", "1"};
    for (size_t i = 0; i < ARRAY_COUNT(quantiles); i++) {
        fmt_str(out, name);
        fmt_str(out, "{quantile=\"");
        fmt_str(out, quantiles[i]);
        fmt_str(out, "\"} 0\n");
    }
    fmt_str(out, name);
    fmt_str(out, "_sum 0\n");
    fmt_str(out, name);
    fmt_str(out, "_count 0\n");
}

struct metric {
    const char *name;
    enum metric_type type;
    enum metric_form form;
    uint64_t value;
    const char *help;
};

static void metric_print(struct fmt *out, const struct metrics *m, const struct metric *metric)
{
    fmt_str(out, "# HELP ");
    fmt_str(out, metric->name);
    fmt_char(out, ' ');
    fmt_str(out, metric->help);
    fmt_str(out, "\n# TYPE ");
    fmt_str(out, metric->name);
    fmt_char(out, ' ');
    fmt_str(out, type_texts[metric->type]);
    fmt_char(out, '\n');
    if (metric->form == METRIC_NONE) {
        summary(out, metric->name);
        return;
    }
    fmt_str(out, metric->name);
    if (metric->form == METRIC_GO_LABEL || metric->form == METRIC_EBB_LABEL) {
        labels(out, m, metric->form == METRIC_EBB_LABEL);
    }
    fmt_char(out, ' ');
    if (metric->form == METRIC_LIMIT && metric->value == UINT64_MAX) {
        fmt_str(out, "+Inf");
    } else if (metric->form == METRIC_NS) {
        fmt_fixed(out, metric->value, 9);
    } else {
        fmt_u64(out, metric->value);
    }
    fmt_char(out, '\n');
}

void metrics_print(struct fmt *out, const struct metrics *m)
{
    const struct metric table[] = {
#define X(name, type, form, value, help) {#name, METRIC_##type, METRIC_##form, value, help},
#include "stats/metric.def"
#undef X
    };
    for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
        metric_print(out, m, &table[i]);
    }
}
