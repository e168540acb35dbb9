// What a dashboard and its panels may be, from Grafana's own types; dashboard_schema.py writes what is checked against it.
import type * as Heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as BarGauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as Stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as StateTimeline from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as Table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as TimeSeries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
// Later versions of the package have no types of Tempo's queries, nor of Prometheus'.
import type { TempoQuery } from "grafana-schema-12/dist/esm/raw/composable/tempo/dataquery/x/TempoDataQuery_types.gen";
import type { PrometheusDataQuery } from "grafana-schema-10/dist/esm/raw/composable/prometheus/dataquery/x/PrometheusDataQuery_types.gen";
import type * as Schema from "@grafana/schema";
import type { Dashboard as Dashboard10 } from "grafana-schema-10";
import type { Dashboard as Dashboard11 } from "grafana-schema-11";
import type { Dashboard as Dashboard12 } from "grafana-schema-12";

/** A type as JSON has it: a string in place of each member of an enum. */
export type Plain<T> = unknown extends T
  ? T
  : T extends string
    ? `${T}`
    : T extends ReadonlyArray<infer Item>
      ? Plain<Item>[]
      : T extends object
        ? { [Key in keyof T]: Plain<T[Key]> }
        : T;

/** The same, where keys that the type does not know are let through: an older Grafana ignores them. */
type Open<T> = unknown extends T
  ? T
  : T extends string
    ? `${T}`
    : T extends ReadonlyArray<infer Item>
      ? Open<Item>[]
      : T extends object
        ? { [Key in keyof T]: Open<T[Key]> } & { [other: string]: unknown }
        : T;

export type InGrafana10 = Open<Dashboard10>;
export type InGrafana11 = Open<Dashboard11>;
export type InGrafana12 = Open<Dashboard12>;

type Link = { title: string; url: string; targetBlank: boolean };

type Property =
  | { id: "unit"; value: string }
  | { id: "decimals"; value: number }
  | { id: "links"; value: Link[] }
  | { id: "mappings"; value: Schema.ValueMapping[] }
  | { id: "thresholds"; value: Schema.ThresholdsConfig }
  | { id: "custom.cellOptions"; value: Schema.TableCellOptions }
  | { id: "custom.lineStyle"; value: Schema.LineStyle }
  | { id: "custom.width"; value: number };

type PanelOf<Kind extends string, Options, Custom> = Plain<
  Omit<Schema.Panel, "type" | "options" | "fieldConfig" | "targets"> & {
    type: Kind;
    options: Options;
    fieldConfig: {
      defaults: Omit<Schema.FieldConfig, "custom"> & { custom?: Custom };
      overrides: { matcher: Schema.MatcherConfig; properties: Property[] }[];
    };
    targets: PrometheusDataQuery[] | TempoQuery[];
  }
>;

/** A panel of each kind, with everything that Grafana's types say of it. */
export type Panels = {
  bargauge: PanelOf<"bargauge", BarGauge.Options, never>;
  heatmap: PanelOf<"heatmap", Heatmap.Options, Heatmap.FieldConfig>;
  row: Plain<Schema.RowPanel>;
  stat: PanelOf<"stat", Stat.Options, never>;
  "state-timeline": PanelOf<"state-timeline", StateTimeline.Options, StateTimeline.FieldConfig>;
  table: PanelOf<"table", Table.Options, Table.FieldConfig>;
  timeseries: PanelOf<"timeseries", TimeSeries.Options, TimeSeries.FieldConfig>;
  // The package has no types of this one: without options it is as Grafana makes it.
  traces: PanelOf<"traces", Record<string, never>, never>;
};

/** What Prometheus' data source keeps of an annotation besides what all have. */
type PrometheusAnnotation = Omit<Schema.AnnotationQuery, "target"> & {
  expr: string;
  step: string;
  tagKeys: string;
  textFormat: string;
  titleFormat: string;
  useValueForTime: boolean;
  target: Schema.DataQuery & { expr: string; interval: string };
};

/** A dashboard; its panels are checked one by one. */
export type Frame = Plain<
  Omit<Schema.Dashboard, "panels" | "annotations"> & {
    panels: never[];
    annotations: { list: (Schema.AnnotationQuery | PrometheusAnnotation)[] };
  }
>;
