/* mincut.c: minimum cut by Dinic's algorithm (1970): shortest augmenting paths, level by level. */
#include "graph/mincut.h"

#include <string.h>

typedef struct edge { /* edges 2k and 2k+1 are each other's reverse */
    int to, next;
    int64_t room;
} edge;

struct wf_flow {
    int n, n_edges, cap_edges;
    edge *e;
    int *head, *level, *at, *queue;
    bool failed;
};

wf_flow *wf_flow_new(int n) {
    wf_flow *f = wf_alloc(sizeof *f);
    if (!f) return NULL;
    f->n = n;
    f->head = wf_alloc_array(4 * (size_t)n, sizeof *f->head);
    if (!f->head) {
        wf_free(f);
        return NULL;
    }
    f->level = f->head + n;
    f->at = f->level + n;
    f->queue = f->at + n;
    for (int v = 0; v < n; v++) f->head[v] = -1;
    return f;
}

void wf_flow_free(wf_flow *f) {
    if (!f) return;
    wf_free(f->e);
    wf_free(f->head);
    wf_free(f);
}

void wf_flow_edge(wf_flow *f, int from, int to, int64_t capacity) {
    if (f->failed) return;
    if (f->n_edges + 2 > f->cap_edges) {
        int cap = f->cap_edges ? f->cap_edges * 2 : 1024;
        edge *e = wf_grow(f->e, (size_t)f->n_edges * sizeof *e, (size_t)cap * sizeof *e);
        if (!e) {
            f->failed = true;
            return;
        }
        f->e = e;
        f->cap_edges = cap;
    }
    f->e[f->n_edges] = (edge){to, f->head[from], capacity};
    f->head[from] = f->n_edges++;
    f->e[f->n_edges] = (edge){from, f->head[to], 0};
    f->head[to] = f->n_edges++;
}

/* Distances from the source over edges with room; is the sink reached? */
static bool set_levels(wf_flow *f, int source, int sink) {
    int front = 0, back = 0;
    for (int v = 0; v < f->n; v++) f->level[v] = -1;
    f->level[source] = 0;
    f->queue[back++] = source;
    while (front < back) {
        int v = f->queue[front++];
        for (int k = f->head[v]; k >= 0; k = f->e[k].next)
            if (f->e[k].room > 0 && f->level[f->e[k].to] < 0) {
                f->level[f->e[k].to] = f->level[v] + 1;
                f->queue[back++] = f->e[k].to;
            }
    }
    return f->level[sink] >= 0;
}

/* One augmenting path along rising levels, without recursion: queue[] holds the edges of the path. */
static bool augment(wf_flow *f, int source, int sink) {
    int depth = 0, v = source;
    while (v != sink) {
        int k = f->at[v];
        while (k >= 0 && !(f->e[k].room > 0 && f->level[f->e[k].to] == f->level[v] + 1)) k = f->e[k].next;
        f->at[v] = k;
        if (k >= 0) {
            f->queue[depth++] = k;
            v = f->e[k].to;
        } else if (depth == 0) {
            return false;
        } else { /* a dead end: back, and past the edge that led here */
            k = f->queue[--depth];
            v = f->e[k ^ 1].to;
            f->at[v] = f->e[k].next;
        }
    }
    int64_t flow = WF_FLOW_MAX;
    for (int i = 0; i < depth; i++)
        if (f->e[f->queue[i]].room < flow) flow = f->e[f->queue[i]].room;
    for (int i = 0; i < depth; i++) {
        f->e[f->queue[i]].room -= flow;
        f->e[f->queue[i] ^ 1].room += flow;
    }
    return true;
}

wf_status wf_flow_cut(wf_flow *f, int source, int sink, bool *sink_side) {
    if (f->failed) return WF_ENOMEM;
    while (set_levels(f, source, sink)) {
        memcpy(f->at, f->head, (size_t)f->n * sizeof *f->at);
        while (augment(f, source, sink)) {}
    }
    int front = 0, back = 0; /* who still reaches the sink? */
    memset(sink_side, 0, (size_t)f->n * sizeof *sink_side);
    sink_side[sink] = true;
    f->queue[back++] = sink;
    while (front < back) {
        int v = f->queue[front++];
        for (int k = f->head[v]; k >= 0; k = f->e[k].next) {
            int u = f->e[k].to;
            if (f->e[k ^ 1].room > 0 && !sink_side[u]) {
                sink_side[u] = true;
                f->queue[back++] = u;
            }
        }
    }
    return WF_OK;
}
