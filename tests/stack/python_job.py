"""A job with a vectorised Python function and nothing else: it makes Python workers run."""

from typing import Any

from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from pyflink.table.udf import udf


@udf(result_type=DataTypes.BIGINT(), func_type="pandas")
def add_one(number: Any) -> Any:
    return number + 1


table_env = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
table_env.create_temporary_function("add_one", add_one)
table_env.execute_sql(
    "CREATE TABLE numbers (n BIGINT) WITH ('connector'='datagen', 'rows-per-second'='100')"
)
table_env.execute_sql("CREATE TABLE nowhere (n BIGINT) WITH ('connector'='blackhole')")
table_env.execute_sql("INSERT INTO nowhere SELECT add_one(n) FROM numbers")
