// SPDX-License-Identifier: MIT
//
// A flame graph as one SVG file: readable as it is, and in a browser a click makes a call as wide
// as the window.
//
// Go  none: go tool pprof -http serves its flame graph, and does not write it to a file.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "prof.h"

#define WIDTH 1200
#define SIDE 10
#define HEAD 62
#define ROW 19
// Narrower than that at the width of the file is not drawn.
#define PIXELS_MIN 0.25
// Of the font, for cutting names where there is no script.
#define LETTER 7.25

static const char style[] =
    "<style>\n"
    "svg{background:#fff;font:12px 'DejaVu Sans Mono',Menlo,Consolas,monospace}\n"
    "text{fill:#1a1a1a;white-space:pre}\n"
    ".title{font-size:16px;font-weight:bold}\n"
    ".faint{fill:#666}\n"
    ".box{cursor:pointer}\n"
    ".box rect{stroke:#fff;stroke-width:1}\n"
    ".box:hover rect{stroke:#333}\n"
    ".box.up{opacity:.7}\n"
    ".box.found rect{fill:#b06fe0}\n"
    ".key{cursor:pointer;fill:#0645ad}\n"
    "@media (prefers-color-scheme:dark){svg{background:#1c1c1f}\n"
    ".head text{fill:#e6e6e6}.head .faint{fill:#9a9a9a}.head .key{fill:#8ab4f8}\n"
    ".box rect{stroke:#1c1c1f}.box:hover rect{stroke:#fff}}\n"
    "</style>\n";

// Lays out by the width of the window; from and to are the part that is shown, of 0 to 1.
static const char script[] =
    "<script><![CDATA[\n"
    "'use strict';\n"
    "const svg=document.documentElement,side=10,letter=7.25;\n"
    "const boxes=[...document.querySelectorAll('.box')].map(g=>({g,rect:g.children[1],\n"
    " text:g.children[2],x:+g.dataset.x,w:+g.dataset.w,name:g.dataset.name,\n"
    " say:g.firstElementChild.textContent}));\n"
    "const info=document.getElementById('info'),reset=document.getElementById('reset'),\n"
    " find=document.getElementById('find'),idle=info.textContent;\n"
    "let from=0,to=1;\n"
    "function label(name,room){const n=Math.floor((room-6)/letter);\n"
    " if(n<3)return'';if(name.length<=n)return name;\n"
    " const path=name.search(/[(<\\[ ]/),cut=name.lastIndexOf('/',path<0?name.length:path);\n"
    " const short=name.slice(cut+1);return short.length<=n?short:short.slice(0,n-1)+'\\u2026';}\n"
    "function layout(){const width=Math.max(300,svg.clientWidth||window.innerWidth)-2*side;\n"
    " const scale=width/(to-from);\n"
    " for(const b of boxes){const left=Math.max(b.x,from),right=Math.min(b.x+b.w,to);\n"
    "  const px=(right-left)*scale;b.g.style.display=px<0.3?'none':'';if(px<0.3)continue;\n"
    "  const x=side+(left-from)*scale;b.rect.setAttribute('x',x);\n"
    "  b.rect.setAttribute('width',px);b.text.setAttribute('x',x+4);\n"
    "  b.text.textContent=label(b.name,px);\n"
    "  b.g.classList.toggle('up',b.x<from-1e-9||b.x+b.w>to+1e-9);}\n"
    " for(const r of document.querySelectorAll('.right'))r.setAttribute('x',width+side);\n"
    " reset.style.display=to-from<1?'':'none';}\n"
    "function zoom(x,w){from=x;to=x+w;layout();}\n"
    "for(const b of boxes){b.g.onclick=()=>zoom(b.x,b.w);\n"
    " b.g.onmouseenter=()=>{info.textContent=b.say;};\n"
    " b.g.onmouseleave=()=>{info.textContent=idle;};}\n"
    "function search(){const word=window.prompt('Find calls whose name has:','');\n"
    " if(word===null)return;for(const b of boxes)b.g.classList.toggle('found',\n"
    "  word!==''&&b.name.toLowerCase().includes(word.toLowerCase()));}\n"
    "reset.onclick=()=>zoom(0,1);find.onclick=search;\n"
    "window.addEventListener('keydown',e=>{if(e.key==='/'){e.preventDefault();search();}\n"
    " if(e.key==='Escape')zoom(0,1);});\n"
    "svg.setAttribute('width','100%');window.addEventListener('resize',layout);layout();\n"
    "]]></script>\n";

static void text_write(FILE *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        switch (text[i]) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        default:
            fputc(text[i], out);
        }
    }
}

// The first so many letters of a name.
static void name_write(FILE *out, const char *text, size_t letters)
{
    size_t len = 0;
    while (text[len] != '\0' && letters > 0) {
        letters--;
        len++;
        while (((unsigned char)text[len] & 0xc0) == 0x80) {
            len++; // the rest of a UTF-8 character
        }
    }
    text_write(out, text, len);
}

struct drawing {
    FILE *out;
    const struct prof_view *view;
    int64_t total;
};

// The same warm colours as in the terminal: yellow to red by the name.
static void colour_write(FILE *out, const char *name)
{
    unsigned tint = flame_tint(name);
    fprintf(out, "hsl(%u,%u%%,%u%%)", 8 + tint % 44, 72 + tint / 44 * 3, 66 + tint % 13);
}

static void call_draw(const struct drawing *d, const struct prof_call *call, int64_t start,
                      int depth)
{
    double share = (double)call->value / (double)d->total;
    double left = (double)start / (double)d->total;
    double pixels = share * (WIDTH - 2 * SIDE);
    char amount[PROF_AMOUNT_BYTES];
    char self[PROF_AMOUNT_BYTES];
    FILE *out = d->out;
    if (pixels < PIXELS_MIN) {
        return;
    }
    double x = SIDE + left * (WIDTH - 2 * SIDE);
    int y = HEAD + depth * ROW;
    fprintf(out, "<g class=\"box\" data-x=\"%.9f\" data-w=\"%.9f\" data-name=\"", left, share);
    name_write(out, call->name, PROF_NAME_BYTES);
    fputs("\"><title>", out);
    name_write(out, call->name, PROF_NAME_BYTES);
    fprintf(out, ": %s, %.2f%%", prof_amount(call->value, d->view->unit, amount, sizeof(amount)),
            100 * share);
    if (call->self != 0) {
        fprintf(out, "; by itself %s", prof_amount(call->self, d->view->unit, self, sizeof(self)));
    }
    fprintf(out, "</title><rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" rx=\"2\" fill=\"",
            x, y, pixels, ROW - 1);
    colour_write(out, call->name);
    fprintf(out, "\"/><text x=\"%.2f\" y=\"%d\">", x + 4, y + 13);
    double letters = floor((pixels - 6) / LETTER);
    if (letters >= 3) {
        name_write(out,
                   strlen(call->name) <= (size_t)letters ? call->name : prof_short_name(call->name),
                   (size_t)letters);
    }
    fputs("</text></g>\n", out);
    for (const struct prof_call *child = call->child; child != NULL; child = child->next) {
        call_draw(d, child, start, depth + 1);
        start = prof_add_width(start, child->value);
    }
}

// How many rows are drawn.
static int depth_drawn(const struct drawing *d, const struct prof_call *call)
{
    int depth = 0;
    double pixels = (double)call->value / (double)d->total * (WIDTH - 2 * SIDE);
    if (pixels < PIXELS_MIN) {
        return 0;
    }
    for (const struct prof_call *child = call->child; child != NULL; child = child->next) {
        int below = depth_drawn(d, child);
        depth = below > depth ? below : depth;
    }
    return depth + 1;
}

void flame_svg_print(FILE *out, const struct prof_tree *tree, const struct prof_view *view,
                     const char *title, const char *subtitle)
{
    struct drawing d = {out, view, tree->root->value > 0 ? tree->root->value : 1};
    int height = HEAD + depth_drawn(&d, tree->root) * ROW + 12;
    fprintf(out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\">\n%s",
            WIDTH, height, style);
    fprintf(out, "<g class=\"head\"><text class=\"title\" x=\"%d\" y=\"24\">", SIDE);
    name_write(out, title, PROF_NAME_BYTES);
    fprintf(out,
            "</text>\n<text class=\"right key\" id=\"reset\" x=\"%d\" y=\"24\" "
            "text-anchor=\"end\" style=\"display:none\">show all</text>\n",
            WIDTH - SIDE);
    fprintf(out, "<text id=\"info\" class=\"faint\" x=\"%d\" y=\"48\">", SIDE);
    name_write(out, subtitle, PROF_NAME_BYTES);
    fprintf(out,
            "</text>\n<text class=\"right key\" id=\"find\" x=\"%d\" y=\"48\" "
            "text-anchor=\"end\">find</text></g>\n",
            WIDTH - SIDE);
    call_draw(&d, tree->root, 0, 0);
    fprintf(out, "%s</svg>\n", script);
}
