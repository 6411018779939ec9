// SPDX-License-Identifier: MIT
//
// The doctor's report as JSON: verdicts, the account, facts and their sources.
//
// Go  none.

#include "doctor.h"

enum doctor_status doctor_status_of(const struct diagnosis *diagnosis)
{
    if (diagnosis->finding) {
        return DOCTOR_FINDING;
    }
    return diagnosis->verdicts[0].id == VERDICT_HEALTHY ? DOCTOR_HEALTHY : DOCTOR_CANNOT_TELL;
}

json_t *json_of_u64(uint64_t value)
{
    return value == UINT64_MAX ? json_null() : json_integer((json_int_t)value);
}

static void set_u64(json_t *object, const char *name, uint64_t value)
{
    json_object_set_new(object, name, json_of_u64(value));
}

json_t *json_of_text(const char *text)
{
    json_t *value = json_string(text);
    return value != NULL ? value : json_string("?");
}

static void set_text(json_t *object, const char *name, const char *text)
{
    json_object_set_new(object, name, json_of_text(text));
}

static json_t *lines_json(const char lines[VERDICT_LINES][VERDICT_LINE_BYTES])
{
    json_t *array = json_array();
    for (size_t i = 0; i < VERDICT_LINES && lines[i][0] != '\0'; i++) {
        json_array_append_new(array, json_of_text(lines[i]));
    }
    return array;
}

static json_t *verdict_json(const struct verdict *v)
{
    json_t *o = json_object();
    set_text(o, "verdict", verdict_name(v->id));
    set_text(o, "title", verdict_title(v->id));
    set_text(o, "confidence", confidence_name(v->confidence));
    set_u64(o, "bytes", v->bytes);
    set_text(o, "sentence", v->sentence);
    json_object_set_new(o, "because", lines_json(v->because));
    set_text(o, "refuted_by", v->refute);
    json_object_set_new(o, "advice", lines_json(v->advice));
    set_text(o, "command", v->command);
    set_u64(o, "predicted_rss_bytes", v->predicts ? v->predicted_rss_bytes : UINT64_MAX);
    return o;
}

static json_t *account_json(const struct account *a)
{
    json_t *o = json_object();
    char name[48];
    for (enum account_row row = 0; row < ROW_COUNT; row++) {
        snprintf(name, sizeof(name), "%s_bytes", account_row_name(row));
        set_u64(o, name, a->bytes[row]);
    }
    set_u64(o, "sum_bytes", a->sum_bytes);
    set_u64(o, "rss_bytes", a->rss_bytes);
    json_object_set_new(o, "unexplained_bytes", json_integer((json_int_t)a->unexplained_bytes));
    return o;
}

static json_t *process_json_of(const struct facts *f)
{
    const struct facts_process *p = &f->process;
    json_t *o = json_object();
    json_t *settings = json_object();
    set_text(o, "name", p->name);
    set_text(o, "command", p->command);
    set_text(o, "exe", p->exe);
    json_object_set_new(o, "uid", json_integer((json_int_t)p->uid));
    set_u64(o, "rss_bytes", p->rss_bytes);
    set_u64(o, "rss_after_bytes", p->rss_after_bytes);
    set_u64(o, "anon_bytes", p->anon_bytes);
    set_u64(o, "file_bytes", p->file_bytes);
    set_u64(o, "shmem_bytes", p->shmem_bytes);
    set_u64(o, "swap_bytes", p->swap_bytes);
    set_u64(o, "peak_rss_bytes", p->peak_rss_bytes);
    set_u64(o, "vm_size_bytes", p->vm_size_bytes);
    set_u64(o, "threads_count", p->threads_count);
    set_u64(o, "cpu_ns", p->cpu_ns);
    set_u64(o, "age_ns", p->age_ns);
    json_object_set_new(o, "gops_port",
                        p->gops_port != 0 ? json_integer(p->gops_port) : json_null());
    for (size_t i = 0; i < p->settings_count; i++) {
        set_text(settings, p->settings[i].name, p->settings[i].value);
    }
    json_object_set_new(o, "settings", settings);
    set_u64(o, "lazyfree_bytes", f->pages.lazyfree_known ? f->pages.lazyfree_bytes : UINT64_MAX);
    set_u64(o, "huge_bytes", f->pages.huge_bytes);
    set_u64(o, "huge_zero_bytes", f->pages.huge_zero_bytes);
    set_u64(o, "mappings_count", f->pages.mappings_count);
    return o;
}

static json_t *cgroup_json(const struct facts_cgroup *g)
{
    json_t *o = json_object();
    if (g->version == 0) {
        json_decref(o);
        return json_null();
    }
    json_object_set_new(o, "version", json_integer(g->version));
    set_text(o, "name", g->name);
    json_object_set_new(o, "alone", json_boolean(g->alone));
    set_u64(o, "limit_bytes", g->limit_bytes);
    set_u64(o, "high_bytes", g->high_bytes);
    set_u64(o, "usage_bytes", g->usage_bytes);
    set_u64(o, "anon_bytes", g->anon_bytes);
    set_u64(o, "file_bytes", g->file_bytes);
    set_u64(o, "shmem_bytes", g->shmem_bytes);
    set_u64(o, "inactive_file_bytes", g->inactive_file_bytes);
    set_u64(o, "active_file_bytes", g->active_file_bytes);
    set_u64(o, "lazyfree_bytes", g->lazyfree_bytes);
    set_u64(o, "kernel_bytes", g->kernel_bytes);
    set_u64(o, "sock_bytes", g->sock_bytes);
    set_u64(o, "oom_kill_count", g->oom_kill_count);
    set_u64(o, "limit_hit_count", g->limit_hit_count);
    return o;
}

static json_t *heaps_json(const struct facts *f)
{
    json_t *array = json_array();
    for (size_t i = 0; i < f->heaps_count; i++) {
        const struct facts_heap *h = &f->heaps[i];
        json_t *o = json_object();
        set_text(o, "kind", heap_kind_name(h->kind));
        set_text(o, "version", h->version);
        json_object_set_new(o, "divided", json_boolean(h->divided));
        set_u64(o, "resident_bytes", h->resident_bytes);
        set_u64(o, "live_bytes", h->live_bytes);
        set_u64(o, "kept_bytes", h->kept_bytes);
        set_u64(o, "pinned_bytes", h->pinned_bytes);
        set_u64(o, "lazy_bytes", h->lazy_bytes);
        set_u64(o, "meta_bytes", h->meta_bytes);
        set_u64(o, "released_bytes", h->released_bytes);
        set_u64(o, "error_bytes", h->error_bytes);
        set_u64(o, "arenas_count", h->arenas_count);
        set_text(o, "note", h->note);
        json_array_append_new(array, o);
    }
    return array;
}

static json_t *go_json(const struct facts_go *go)
{
    json_t *o = json_object();
    json_t *groups = json_array();
    if (!go->is_go) {
        json_decref(o);
        json_decref(groups);
        return json_null();
    }
    set_text(o, "version", go->version);
    json_object_set_new(o, "madvise_free", json_boolean(go->madvise_free));
    set_u64(o, "HeapSys", go->memory_known ? go->heap_sys_bytes : UINT64_MAX);
    set_u64(o, "HeapIdle", go->memory_known ? go->heap_idle_bytes : UINT64_MAX);
    set_u64(o, "HeapInuse", go->memory_known ? go->heap_inuse_bytes : UINT64_MAX);
    set_u64(o, "HeapReleased", go->memory_known ? go->heap_released_bytes : UINT64_MAX);
    set_u64(o, "HeapAlloc", go->memory_known ? go->heap_live_bytes : UINT64_MAX);
    set_u64(o, "NextGC", go->memory_known ? go->next_gc_bytes : UINT64_MAX);
    set_u64(o, "goroutines_count", go->goroutines_known ? go->goroutines_count : UINT64_MAX);
    set_u64(o, "timers_count", go->timers_known ? go->timers_count : UINT64_MAX);
    for (size_t i = 0; i < go->groups_count; i++) {
        const struct go_group *g = &go->groups[i];
        json_t *group = json_object();
        set_u64(group, "count", g->count);
        set_text(group, "state", g->state);
        set_text(group, "site", g->site);
        set_text(group, "creator", g->creator);
        set_u64(group, "waited_ns", g->waited_ns);
        json_array_append_new(groups, group);
    }
    json_object_set_new(o, "goroutines", groups);
    return o;
}

static json_t *reach_json(const struct facts_reach *r)
{
    json_t *o = json_object();
    set_u64(o, "reachable_bytes", r->reachable_bytes);
    set_u64(o, "unreachable_bytes", r->unreachable_bytes);
    set_u64(o, "unreachable_count", r->unreachable_count);
    set_u64(o, "common_bytes", r->common_bytes);
    set_u64(o, "common_count", r->common_count);
    set_u64(o, "heads_count", r->heads_count);
    set_u64(o, "held_bytes", r->held_bytes);
    set_u64(o, "read_bytes", r->read_bytes);
    json_object_set_new(o, "still", json_boolean(r->still));
    return o;
}

static json_t *ebb_json(const struct facts_ebb *ebb)
{
    if (!ebb->loaded) {
        return json_null();
    }
    json_t *o = json_object();
    set_text(o, "version", ebb->version);
    set_text(o, "policy", ebb->policy);
    set_text(o, "options", ebb->options);
    set_u64(o, "limit_bytes", ebb->limit_bytes);
    json_object_set_new(o, "in_use", json_boolean(ebb->in_use));
    return o;
}

static json_t *sites_json(const struct facts *f, bool series)
{
    json_t *array = json_array();
    for (size_t i = 0; i < f->sites_count; i++) {
        json_t *o = json_object();
        set_text(o, "site", f->sites[i].name);
        set_text(o, "caller", f->sites[i].caller);
        set_u64(o, "bytes", f->sites[i].bytes);
        set_u64(o, "count", f->sites[i].count);
        if (series) {
            json_object_set_new(o, "grown_bytes",
                                json_integer((json_int_t)f->sites[i].grown_bytes));
        }
        json_array_append_new(array, o);
    }
    return array;
}

static json_t *sources_json(const struct facts *f)
{
    json_t *o = json_object();
    for (enum source_id id = 0; id < SOURCE_COUNT; id++) {
        const struct source *source = &f->sources[id];
        if (source->state == SOURCE_NOT_ASKED) {
            continue;
        }
        json_t *one = json_object();
        set_text(one, "state", source_state_name(source->state));
        set_text(one, "place", source_place(id));
        set_u64(one, "cost_ns", source->cost_ns);
        if (source->why[0] != '\0') {
            set_text(one, "why", source->why);
        }
        json_object_set_new(o, source_name(id), one);
    }
    return o;
}

static json_t *trend_json(const struct trend *t)
{
    json_t *o = json_object();
    set_text(o, "shape", trend_shape_name(t->shape));
    set_text(o, "of", t->of);
    set_u64(o, "first_bytes", t->first_bytes);
    set_u64(o, "last_bytes", t->last_bytes);
    set_u64(o, "least_bytes", t->least_bytes);
    set_u64(o, "most_bytes", t->most_bytes);
    set_u64(o, "span_ns", t->span_ns);
    set_u64(o, "samples_count", t->samples_count);
    set_u64(o, "goroutines_first_count",
            t->goroutines_told ? t->goroutines_first_count : UINT64_MAX);
    set_u64(o, "goroutines_last_count", t->goroutines_told ? t->goroutines_last_count : UINT64_MAX);
    json_object_set_new(o, "slope_bytes_per_s", json_real(t->slope_bytes_per_s));
    json_object_set_new(o, "cpu_share", json_real(t->cpu_share));
    return o;
}

json_t *doctor_json(const struct examination *e)
{
    const struct facts *f = &e->facts;
    const struct diagnosis *d = &e->diagnosis;
    bool series = d->trend.of != NULL;
    json_t *root = json_object();
    json_t *verdicts = json_array();
    for (size_t i = 0; i < d->count; i++) {
        json_array_append_new(verdicts, verdict_json(&d->verdicts[i]));
    }
    json_object_set_new(root, "pid", json_integer(f->pid));
    set_text(root, "name", f->process.name);
    set_text(root, "verdict", verdict_name(d->verdicts[0].id));
    set_text(root, "sentence", d->verdicts[0].sentence);
    json_object_set_new(root, "status", json_integer((json_int_t)doctor_status_of(d)));
    json_object_set_new(root, "verdicts", verdicts);
    json_object_set_new(root, "account", account_json(&d->account));
    json_object_set_new(root, "trend", series ? trend_json(&d->trend) : json_null());
    json_object_set_new(root, "process", process_json_of(f));
    json_object_set_new(root, "cgroup", cgroup_json(&f->cgroup));
    json_object_set_new(root, "heaps", heaps_json(f));
    json_object_set_new(root, "go", go_json(&f->go));
    json_object_set_new(root, "ebb", ebb_json(&f->ebb));
    json_object_set_new(root, "reach", f->reach.known ? reach_json(&f->reach) : json_null());
    json_object_set_new(root, "sites", sites_json(f, series));
    json_object_set_new(root, "sources", sources_json(f));
    set_u64(root, "cost_ns", f->cost_ns);
    return root;
}
