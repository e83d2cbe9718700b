// What the operational routes look like to a client.

import { count, object, type RouteDoc, text } from "./openapi.ts";

const status = object({ status: text });

export const OPS_ROUTES: readonly RouteDoc[] = [
  {
    path: "/",
    method: "get",
    tag: "operations",
    security: "none",
    summary: "Name and version",
    answers: { 200: object({ name: text, version: text, docs: text }) },
    refusals: [],
  },
  {
    path: "/livez",
    method: "get",
    tag: "operations",
    security: "none",
    summary: "Whether the process serves",
    answers: { 200: status, 503: status },
    refusals: [],
  },
  {
    path: "/readyz",
    method: "get",
    tag: "operations",
    security: "none",
    summary: "Whether requests should be sent here",
    answers: { 200: status, 503: status },
    refusals: [],
  },
  {
    path: "/metrics",
    method: "get",
    tag: "operations",
    security: "operator",
    summary: "Figures in the text format of Prometheus",
    answers: { 200: "bytes" },
    refusals: [404],
  },
  {
    path: "/openapi.json",
    method: "get",
    tag: "operations",
    security: "none",
    summary: "This document",
    answers: { 200: { type: "object" } },
    refusals: [],
  },
  {
    path: "/_admin/backup",
    method: "post",
    tag: "operations",
    security: "operator",
    summary: "Writes a proven copy of the store into the backup directory",
    answers: { 200: object({ file: text, bytes: count, revision: count, entries: count, ms: count }) },
    refusals: [409, 500, 507],
  },
];
