"""Names of cells that are neither the mLSTM nor attention: timed for orientation, never ranked. No torch."""

#: In the field `computation` of the records, and as an operator.
GATED_DELTA_RULE = "gated_delta_rule"
OTHER_CELLS = (GATED_DELTA_RULE,)
#: The implementation as records, tables and figures name it.
GATED_DELTA_RULE_NAME = "gated_delta_rule (another cell), chunk 64"
