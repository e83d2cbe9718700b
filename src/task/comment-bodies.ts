// The body that makes a comment.

import { z } from "zod";
import { textUpTo } from "./item-bodies.ts";

const COMMENT_MAX = 10_000;

export const NewCommentBody = z.strictObject({
  body: textUpTo(COMMENT_MAX).refine((text) => text !== "", "must not be empty"),
});
