// The list of API suites by service; each is a function of a target.

import type { OpenTarget } from "../support/targets.ts";
import { conditionsSuite } from "./conditions-suite.ts";
import { expirySuite } from "./expiry-suite.ts";
import { gateSuite } from "./gate-suite.ts";
import { kvSuite } from "./kv-suite.ts";
import { limitsSuite } from "./limits-suite.ts";
import { listSuite } from "./list-suite.ts";
import { metadataSuite } from "./metadata-suite.ts";
import { namesSuite } from "./names-suite.ts";
import { openApiSuite } from "./openapi-suite.ts";
import { opsSuite } from "./ops-suite.ts";
import { rawHttpSuite } from "./raw-http-suite.ts";
import { relayAbortsSuite } from "./relay-aborts-suite.ts";
import { relayChannelsSuite } from "./relay-channels-suite.ts";
import { relayErrorsSuite } from "./relay-errors-suite.ts";
import { relayExtrasSuite } from "./relay-extras-suite.ts";
import { relayFirstStepsSuite } from "./relay-first-steps-suite.ts";
import { relayLimitsSuite } from "./relay-limits-suite.ts";
import { relayQuotaSuite } from "./relay-quota-suite.ts";
import { relayRetrySuite } from "./relay-retry-suite.ts";
import { relaySelectionSuite } from "./relay-selection-suite.ts";
import { relayStreamsSuite } from "./relay-streams-suite.ts";
import { relayTokensSuite } from "./relay-tokens-suite.ts";
import { relayWireSuite } from "./relay-wire-suite.ts";
import { taskAccessSuite } from "./task-access-suite.ts";
import { taskAccountsSuite } from "./task-accounts-suite.ts";
import { taskAdminSuite } from "./task-admin-suite.ts";
import { taskCacheSuite } from "./task-cache-suite.ts";
import { taskCleanupSuite } from "./task-cleanup-suite.ts";
import { taskCommentsSuite } from "./task-comments-suite.ts";
import { taskCorsSuite } from "./task-cors-suite.ts";
import { taskExportsSuite } from "./task-exports-suite.ts";
import { taskFilesSuite } from "./task-files-suite.ts";
import { taskGateSuite } from "./task-gate-suite.ts";
import { taskHistorySuite } from "./task-history-suite.ts";
import { taskIdempotencySuite } from "./task-idempotency-suite.ts";
import { taskItemsSuite } from "./task-items-suite.ts";
import { taskJobsAdminSuite } from "./task-jobs-admin-suite.ts";
import { taskJobsSuite } from "./task-jobs-suite.ts";
import { taskListsSuite } from "./task-lists-suite.ts";
import { taskRemindersSuite } from "./task-reminders-suite.ts";
import { taskSearchSuite } from "./task-search-suite.ts";
import { taskSessionsSuite } from "./task-sessions-suite.ts";
import { taskStatsSuite } from "./task-stats-suite.ts";
import { taskStreamsSuite } from "./task-streams-suite.ts";
import { taskWebhooksSuite } from "./task-webhooks-suite.ts";
import { tokenAdminSuite } from "./token-admin-suite.ts";
import { tokenBatchSuite } from "./token-batch-suite.ts";
import { tokenCorsSuite } from "./token-cors-suite.ts";
import { tokenCreatorSuite } from "./token-creator-suite.ts";
import { tokenCredentialSuite } from "./token-credential-suite.ts";
import { tokenLimitsSuite } from "./token-limits-suite.ts";
import { tokenListsSuite } from "./token-lists-suite.ts";
import { tokenNamesSuite } from "./token-names-suite.ts";
import { tokenPermissionsSuite } from "./token-permissions-suite.ts";
import { tokenRevocationSuite } from "./token-revocation-suite.ts";
import { tokenRoutesSuite } from "./token-routes-suite.ts";
import { tokenTenancySuite } from "./token-tenancy-suite.ts";
import { tokenValuesSuite } from "./token-values-suite.ts";
import { tokenWipeSuite } from "./token-wipe-suite.ts";

/** Takes the name of the target for its titles. */
type Suite = (name: string, open: OpenTarget) => void;

export const SUITES = {
  kv: [
    kvSuite,
    namesSuite,
    conditionsSuite,
    expirySuite,
    metadataSuite,
    listSuite,
    limitsSuite,
    opsSuite,
    rawHttpSuite,
    gateSuite,
  ],
  token: [
    tokenListsSuite,
    tokenPermissionsSuite,
    tokenWipeSuite,
    tokenTenancySuite,
    tokenBatchSuite,
    tokenCredentialSuite,
    tokenNamesSuite,
    tokenRoutesSuite,
    tokenValuesSuite,
    openApiSuite,
    tokenAdminSuite,
    tokenCorsSuite,
    tokenCreatorSuite,
    tokenLimitsSuite,
    tokenRevocationSuite,
  ],
  relay: [
    relayChannelsSuite,
    relayTokensSuite,
    relayQuotaSuite,
    relayLimitsSuite,
    relayFirstStepsSuite,
    relayErrorsSuite,
    relayWireSuite,
    relayExtrasSuite,
  ],
  /** These wait for most of their time: beside others, not behind them. */
  relayChoice: [relayRetrySuite, relaySelectionSuite],
  relayStreams: [relayAbortsSuite, relayStreamsSuite],
  task: [
    taskCorsSuite,
    taskSessionsSuite,
    taskGateSuite,
    taskAdminSuite,
    taskJobsAdminSuite,
    taskAccountsSuite,
    taskWebhooksSuite,
    taskAccessSuite,
    taskCommentsSuite,
    taskHistorySuite,
    taskIdempotencySuite,
    taskItemsSuite,
    taskListsSuite,
    taskCacheSuite,
    taskStatsSuite,
    taskSearchSuite,
    taskFilesSuite,
    taskExportsSuite,
    taskJobsSuite,
    taskRemindersSuite,
    taskStreamsSuite,
    taskCleanupSuite,
  ] as readonly Suite[],
} as const satisfies Record<string, readonly Suite[]>;
