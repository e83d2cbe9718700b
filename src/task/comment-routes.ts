// Routes that lead to the comments of a task.

import { parseQuery } from "../http/query-parameters.ts";
import { respondJson } from "../http/respond.ts";
import { NewCommentBody } from "./comment-bodies.ts";
import { respondOldestFirst } from "./history-pages.ts";
import { readIdempotencyKey } from "./idempotency-key.ts";
import { listComments } from "./item-store.ts";
import { parseFields } from "./request-bodies.ts";
import { forUsers, parseId, readJsonBody, type TaskRoutes, type UserRequest } from "./task-request.ts";

export const COMMENT_ROUTES: TaskRoutes = {
  "/tasks/:id/comments": {
    GET: forUsers((request) => respondOldestFirst(request, "comments", listComments)),
    POST: forUsers(createComment),
  },
  "/tasks/:id/comments/:cid": { DELETE: forUsers(deleteComment) },
};

async function createComment(request: UserRequest): Promise<Response> {
  const { services, scope, who, params } = request;
  const taskId = parseId(params.id);
  parseQuery(scope.request.url, []);
  const keyedBy = readIdempotencyKey(request);
  const { body, keyed } = await readJsonBody(request, services.settings.taskBodyMax, (bytes) => ({
    ...parseFields(bytes, NewCommentBody),
    keyed: keyedBy(bytes),
  }));
  const creation = { userId: who.userId, requestId: scope.id, taskId, body, keyed };
  const answer = await services.writer.run("task.createComment", creation);
  return respondJson(scope, answer.status, answer.body, answer.isReplayed ? { "Idempotent-Replayed": "true" } : {});
}

async function deleteComment({ services, scope, who, params }: UserRequest): Promise<Response> {
  const [taskId, commentId] = [parseId(params.id), parseId(params.cid, "comment")];
  parseQuery(scope.request.url, []);
  const deletion = { userId: who.userId, requestId: scope.id, taskId, commentId };
  await services.writer.run("task.deleteComment", deletion);
  return respondJson(scope, 200, { message: "Comment deleted successfully" });
}
